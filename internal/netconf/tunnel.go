package netconf

import (
	"fmt"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

// readTunnel reads what overlay-ln has beside bridge-ln, and the ipam section of which the
// host's block makes the pool.
func (n *Network) readTunnel(v values, s Source, in sections) error {
	size, err := readTunnelKeys(v, &n.Config, n.IPAMType, s, n.StateDir)
	if err != nil {
		return err
	}
	n.BlockSize, n.ByAgent = size, v[keyNodes].Missing()
	if !n.ByAgent && len(n.Config.Tunnel.Nodes) == 0 {
		return badKey(v[keyNodes].Place(), "[]", `want a list of the hosts' addresses as ["192.0.2.1", "192.0.2.2"], or none to have ln-agent keep it`)
	}
	const want = "none: the addresses are those of this host's block"
	for _, key := range []int{ipamSubnet, ipamRanges} {
		if !in.ipam[key].Missing() {
			in.ipam[key].Refuse(want)
		}
	}
	if ranges := in.runtime[capIPRanges]; len(ranges.Items()) > 0 {
		ranges.Refuse(want)
	}
	if err := s.Conf.Err(); err != nil {
		return err
	}
	n.Pool, err = readPool(s, in)
	return err
}

// readTunnelKeys reads what does not depend on the host. Others of the network's keys have
// another default with a tunnel: the mode is "nat", unless the network is internal, and the
// MTU "auto".
func readTunnelKeys(v values, n *model.NetworkConfig, ipamType string, s Source, stateDir string) (model.BlockSize, error) {
	t, size := &n.Tunnel, model.DefaultBlockSize()
	v[keyVNI].Int(&t.VNI)
	v[keyPort].Int(&t.Port)
	v[keyDevice].String(&t.Device)
	v[keyIsolated].Bool(&n.NoHost)
	v[keyDirectRouting].Bool(&t.DirectRouting)
	t.Subnets = readPrefixes(v[keySubnet])
	readBlockSize(v[keyBlockSize], &size)
	readEncryption(v, t)
	if s.Known != nil && v[keyNodes].IsList() && !t.Encrypted() {
		t.Nodes = s.Known(stateDir, v[keyNodes].Raw(), v[keySubnet].Raw(), v[keyBlockSize].Raw())
	}
	if t.Nodes == nil {
		t.Nodes = readNodes(v[keyNodes])
	}
	if err := s.Conf.Err(); err != nil {
		return size, err
	}
	if ipamType != "" && ipamType != poolType {
		return size, badKey("ipam.type", fmt.Sprintf("%q", ipamType), "want \"ipam-ln\", or no ipam: the addresses are those of this host's block")
	}
	if v[keyGatewayMode].Missing() && !n.Internal {
		n.GatewayModeIPv4, n.GatewayModeIPv6 = model.GatewayNAT, model.GatewayNAT
		n.DefaultGateway = n.DefaultGateway || v[keyIsGateway].Missing() && v[keyIsDefaultGateway].Missing()
	}
	n.AutoMTU = n.AutoMTU || v[keyMTU].Missing()
	return size, nil
}

const maxPort = 65535 // of UDP

// readEncryption reads the encryption, which cannot be with a VNI. Without nodes the keys are
// ln-agent's.
func readEncryption(v values, t *model.TunnelConfig) {
	v[keyEncryption].String((*string)(&t.Encryption))
	v[keyPrivateKeyFile].String(&t.PrivateKeyFile)
	if !v[keyEncryption].Missing() && t.Encryption != model.WireGuard { // an empty one, too: it is no wish for clear text
		v[keyEncryption].Refuse(`"wireguard", or no such key`)
	}
	if !t.Encrypted() {
		return
	}
	if v[keyNodes].Missing() && t.Port == maxPort {
		v[keyPort].Refuse("a UDP port from 1 to 65534: ln-agent has a second device at the one behind it while keys change")
	}
	if v[keyNodes].Missing() && !v[keyPrivateKeyFile].Missing() {
		v[keyPrivateKeyFile].Refuse("none without nodes: ln-agent makes the keys")
	}
	if !v[keyVNI].Missing() {
		v[keyVNI].Refuse("none: WireGuard has no VNI, and networks differ in port")
	}
}

func readBlockSize(v jsonr.Value, size *model.BlockSize) {
	in := inside(v, sizeTable)
	in[sizeIPv4].Int(&size.IPv4)
	in[sizeIPv6].Int(&size.IPv6)
	if size.IPv4 < 1 || size.IPv4 > 30 {
		in[sizeIPv4].Refuse("the length of a prefix, 1 to 30")
	}
	if size.IPv6 < 1 || size.IPv6 > 126 {
		in[sizeIPv6].Refuse("the length of a prefix, 1 to 126")
	}
}

// readNodes reads addresses, and objects of an address and its blocks.
func readNodes(v jsonr.Value) []model.Node {
	var all []model.Node
	for _, item := range v.Items() {
		if item.IsObject() {
			in := inside(item, nodeTable)
			node := model.Node{Address: in[nodeAddress].Addr(), Subnets: readPrefixes(in[nodeSubnet])}
			if !node.Address.IsValid() {
				in[nodeAddress].Refuse(`the host's address as "192.0.2.1"`)
			}
			node.PublicKey = readPublicKey(in[nodePublicKey])
			all = append(all, node)
			continue
		}
		s, _ := item.Text()
		a, err := netip.ParseAddr(s)
		if err != nil {
			item.Refuse(`an address as "192.0.2.1", or an object as {"address": "192.0.2.1", "subnet": "10.5.1.0/24"}`)
		}
		all = append(all, model.Node{Address: a.Unmap()})
	}
	return all
}

// readPublicKey returns a key; zero if it is missing.
func readPublicKey(v jsonr.Value) wireguard.Key {
	var text string
	v.String(&text)
	if v.Missing() {
		return wireguard.Key{}
	}
	k, err := wireguard.ParseKey(text)
	if err != nil || k.IsZero() {
		v.Refuse(`the host's public key, as "lnctl overlay keygen" printed it there: 44 characters of base64`)
	}
	return k
}

// readPrefixes returns a prefix, or a list of them; nil if it is missing.
func readPrefixes(v jsonr.Value) []netip.Prefix {
	if v.Missing() {
		return nil
	}
	texts := []string{""}
	if v.IsList() {
		texts = v.Strings()
	} else {
		v.String(&texts[0])
	}
	var all []netip.Prefix
	for _, s := range texts {
		p, err := netip.ParsePrefix(s)
		if err != nil || p != p.Masked() || p.Addr().Is4In6() {
			v.Refuse(`a prefix without host bits as "10.5.0.0/16", or a list of them`)
			return nil
		}
		all = append(all, p)
	}
	return all
}
