package etcd

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/libnet-cni/libnet/internal/overlay"
)

// keys are the names of what we write, below a prefix.
type keys struct{ prefix string }

func (k keys) all() string                                 { return k.prefix + "/" }
func (k keys) node(name string) string                     { return k.prefix + "/nodes/" + name }
func (k keys) liveNode(name string) string                 { return k.prefix + "/live/nodes/" + name }
func (k keys) liveAddr(a netip.Addr) string                { return k.prefix + "/live/addresses/" + a.String() }
func (k keys) joining(name string) string                  { return k.prefix + "/joining/" + name }
func (k keys) history() string                             { return k.prefix + "/history" }
func (k keys) holds(name string) string                    { return k.prefix + "/holds/" + name }
func (k keys) networks() string                            { return k.prefix + "/networks/" }
func (k keys) vni(vni int) string                          { return k.prefix + "/vnis/" + strconv.Itoa(vni) }
func (k keys) evicted(name string) string                  { return k.prefix + "/evicted/" + name }
func (k keys) epoch(network string) string                 { return k.prefix + "/networks/" + network + "/epoch" }
func (k keys) secret(network, node string) string          { return k.secrets(network) + node }
func (k keys) secrets(network string) string               { return k.prefix + "/networks/" + network + "/keys/" }
func (k keys) terms(network string) string                 { return k.prefix + "/networks/" + network + "/terms" }
func (k keys) blocks(network string) string                { return k.prefix + "/networks/" + network + "/blocks/" }
func (k keys) block(network string, b netip.Prefix) string { return k.blocks(network) + b.String() }
func (k keys) services(network string) string              { return k.prefix + "/services/" + network + "/" }
func (k keys) service(network, name string) string {
	return k.services(network) + strings.ToLower(name)
}
func (k keys) vips(network string) string              { return k.prefix + "/vips/" + network + "/" }
func (k keys) vip(network string, a netip.Addr) string { return k.vips(network) + a.String() }

// The values, as JSON.
type (
	// nodeValue is of nodes/<node>. It stays until the node leaves, or is given up.
	nodeValue struct {
		Address netip.Addr `json:"address"`
		Version string     `json:"version,omitempty"` // of its ln-agent
		// Also are other addresses of the host, as of when its agent came into touch.
		Also []netip.Addr `json:"also,omitempty"`
	}
	// liveValue is of live/nodes/<node> and live/addresses/<address>. It goes when
	// the node is not heard of.
	liveValue struct {
		Node     string `json:"node"`
		Instance string `json:"instance"` // see Self
	}
	// holdsValue is of holds/<node>. While it is there, the node's blocks are its
	// own.
	holdsValue struct {
		Seconds int64 `json:"seconds"` // for which it stays without the node; 0: for ever
	}
	// termsValue is of networks/<network>/terms.
	termsValue struct {
		Subnets   []netip.Prefix `json:"subnets"`
		BlockSize sizeValue      `json:"blockSize"`
		VNI       int            `json:"vni"`
		Port      int            `json:"port"`
		Underlay  string         `json:"underlay"` // "ipv4" or "ipv6"
		// Encryption is missing if there is none.
		Encryption overlay.Encryption `json:"encryption,omitempty"`
		By         string             `json:"by"`
	}
	sizeValue struct {
		IPv4 int `json:"ipv4"`
		IPv6 int `json:"ipv6"`
	}
	// blockValue is of networks/<network>/blocks/<prefix>.
	blockValue struct {
		Node string `json:"node"`
		// Epoch of the claim: generation and revision; missing: of an earlier version.
		Epoch []int64 `json:"epoch,omitempty"`
	}
	// historyValue is of history; see overlay.History.
	historyValue struct {
		Lineage    string `json:"lineage"`
		Generation int64  `json:"generation"`
		Cluster    string `json:"cluster"`
	}
	// joiningValue is of joining/<node>, while that asks the others.
	joiningValue struct {
		Instance string `json:"instance"`
	}
	// keysValue is of networks/<network>/keys/<node>; see overlay.HostKeys.
	keysValue struct {
		Keys  []overlay.EpochKey `json:"keys"`
		Sends int                `json:"sends"`
	}
	// epochValue is of networks/<network>/epoch; see overlay.KeyEpoch.
	epochValue struct {
		Epoch int    `json:"epoch"`
		By    string `json:"by"`
	}
	// evictedValue is of evicted/<node>.
	evictedValue struct {
		By string `json:"by"`
	}
	// vniValue is of vnis/<vni>.
	vniValue struct {
		Network string `json:"network"`
	}
)

func encode(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // none of the above can fail
	}
	return string(data)
}

func encodeBlock(node string, e overlay.Epoch) string {
	v := blockValue{Node: node}
	if e != (overlay.Epoch{}) {
		v.Epoch = []int64{e.Generation, e.Revision}
	}
	return encode(v)
}

// epoch is that of the claim.
func (v blockValue) epoch() overlay.Epoch {
	if len(v.Epoch) != 2 {
		return overlay.Epoch{}
	}
	return overlay.Epoch{Generation: v.Epoch[0], Revision: v.Epoch[1]}
}

func encodeTerms(t overlay.Terms) string {
	v := termsValue{Subnets: t.Subnets, BlockSize: sizeValue(t.Size), VNI: t.VNI, Port: t.Port, Underlay: "ipv4", By: t.By, Encryption: t.Encryption}
	if t.IPv6 {
		v.Underlay = "ipv6"
	}
	return encode(v)
}

func decodeTerms(data []byte) (overlay.Terms, error) {
	var v termsValue
	if err := json.Unmarshal(data, &v); err != nil {
		return overlay.Terms{}, err
	}
	if v.Underlay != "ipv4" && v.Underlay != "ipv6" || v.VNI < 1 || v.VNI > overlay.MaxVNI || v.Port < 1 || v.Port > 65535 || len(v.Subnets) == 0 {
		return overlay.Terms{}, fmt.Errorf("want subnets, a VNI, a port, and \"ipv4\" or \"ipv6\" as underlay")
	}
	return overlay.Terms{Subnets: v.Subnets, Size: overlay.BlockSize(v.BlockSize), VNI: v.VNI, Port: v.Port, IPv6: v.Underlay == "ipv6",
		By: v.By, Encryption: v.Encryption}, nil
}

// split takes a key below the prefix apart at its first n slashes.
func (k keys) split(key string) []string {
	const deepest = 4 // networks/<network>/blocks/<prefix, with a slash>
	return strings.SplitN(strings.TrimPrefix(key, k.all()), "/", deepest)
}
