package model

import (
	"fmt"
	"path/filepath"

	"github.com/libnet-cni/libnet/internal/wireguard"
)

// validateEncryption refuses what would have packets leave in clear, or never arrive. A key
// without encryption is refused, too: a configuration with a key is meant to encrypt.
func (t TunnelConfig) validateEncryption() error {
	switch {
	case t.Encryption != "" && t.Encryption != WireGuard:
		return BadConfig("encryption", fmt.Sprintf("%q", t.Encryption), `want "wireguard", or none`)
	case t.Encryption == "" && t.PrivateKeyFile != "":
		return BadConfig("privateKeyFile", fmt.Sprintf("%q", t.PrivateKeyFile), `is without effect: want "encryption": "wireguard", too`)
	case t.Encryption == "":
		for i, n := range t.Nodes {
			if !n.PublicKey.IsZero() {
				return BadConfig(fmt.Sprintf("nodes[%d].publicKey", i), n.PublicKey, `is without effect: want "encryption": "wireguard", too`)
			}
		}
		return nil
	case t.Device != "":
		return BadConfig("device", fmt.Sprintf("%q", t.Device), "cannot be together with encryption: WireGuard sends as the host's routes say")
	case t.Agent && t.PrivateKeyFile != "":
		return BadConfig("privateKeyFile", fmt.Sprintf("%q", t.PrivateKeyFile), "is without effect: want none without nodes, as ln-agent makes the keys")
	case t.Agent:
		return nil // the hosts' keys are in the node file
	case !filepath.IsAbs(t.PrivateKeyFile):
		return BadConfig("privateKeyFile", fmt.Sprintf("%q", t.PrivateKeyFile), `want the absolute path of a file that "lnctl overlay keygen" made on this host`)
	}
	of := map[wireguard.Key]int{}
	for i, n := range t.Nodes {
		key := fmt.Sprintf("nodes[%d].publicKey", i)
		if n.PublicKey.IsZero() {
			return BadConfig(key, "missing", `want the key that "lnctl overlay keygen" printed on `+n.Address.String()+", as encryption is set")
		}
		if first, twice := of[n.PublicKey]; twice {
			return BadConfig(key, n.PublicKey, fmt.Sprintf("nodes[%d] has it, too: each host has a key of its own", first))
		}
		of[n.PublicKey] = i
	}
	return nil
}
