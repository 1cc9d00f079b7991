package libnet

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// PublishConfig is how a Publisher publishes. The zero value is right where
// nothing else is asked for. In brackets: the key of the CNI configuration.
type PublishConfig struct {
	// NoHairpin [snat: false] leaves the container itself, its neighbours and
	// 127.0.0.0/8 out of the clients.
	NoHairpin bool
	// MasqueradeAll [masqAll] gives all clients the host's address as source.
	MasqueradeAll bool
	// Backend [backend]; empty: BackendAuto. The keys below need BackendIPTables,
	// which BackendAuto then is.
	Backend Backend
	// ConditionsIPv4 and ConditionsIPv6 [conditionsV4, conditionsV6] are matches
	// of iptables that a client must meet, too.
	ConditionsIPv4, ConditionsIPv6 []string
	// MarkMasqBit [markMasqBit] is the bit of the packet mark, 0 to 31, that
	// says to masquerade; nil: 13.
	MarkMasqBit *int
	// SetMarkChain [externalSetMarkChain] is somebody else's chain that marks
	// what is to be masqueraded. Not with MarkMasqBit.
	SetMarkChain string
}

// defaultMarkBit is that of the reference portmap plugin.
const defaultMarkBit = 13

// iptables returns what only that backend can do; nil if nothing is asked for.
func (c PublishConfig) iptables() *firewall.IPTablesOptions {
	if len(c.ConditionsIPv4) == 0 && len(c.ConditionsIPv6) == 0 && c.MarkMasqBit == nil && c.SetMarkChain == "" {
		return nil
	}
	o := &firewall.IPTablesOptions{
		ConditionsIPv4: c.ConditionsIPv4, ConditionsIPv6: c.ConditionsIPv6, MarkBit: defaultMarkBit, SetMarkChain: c.SetMarkChain,
	}
	if c.MarkMasqBit != nil {
		o.MarkBit = *c.MarkMasqBit
	}
	return o
}

// saved is what a record keeps: nothing of the zero value.
func (c PublishConfig) saved() json.RawMessage {
	if c.iptables() == nil && !c.NoHairpin && !c.MasqueradeAll {
		return nil
	}
	data, _ := json.Marshal(c) // of bools and strings: never fails
	return data
}

func (c PublishConfig) validate() error {
	if !slices.Contains([]Backend{"", BackendAuto, BackendNFTables, BackendIPTables}, c.Backend) {
		return badConfig("backend", fmt.Sprintf("%q", c.Backend), `want "auto", "nftables" or "iptables"`)
	}
	if c.MarkMasqBit != nil && (*c.MarkMasqBit < 0 || *c.MarkMasqBit > 31) {
		return badConfig("markMasqBit", *c.MarkMasqBit, "want a bit of the mark, 0 to 31")
	}
	if c.MarkMasqBit != nil && c.SetMarkChain != "" {
		return badConfig("externalSetMarkChain", fmt.Sprintf("%q", c.SetMarkChain), "cannot be together with markMasqBit; remove one of them")
	}
	if c.Backend != BackendNFTables {
		return nil
	}
	for key, given := range map[string]bool{
		"conditionsV4": len(c.ConditionsIPv4) > 0, "conditionsV6": len(c.ConditionsIPv6) > 0,
		"markMasqBit": c.MarkMasqBit != nil, "externalSetMarkChain": c.SetMarkChain != "",
	} {
		if given {
			return badConfig(key, "given", `cannot be together with backend "nftables": these are words of iptables`)
		}
	}
	return nil
}
