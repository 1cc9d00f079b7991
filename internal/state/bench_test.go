package state

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// BenchmarkEncode is the first record that a process writes, by internal/jsonw
// and by encoding/json.
func BenchmarkEncode(b *testing.B) {
	r := benchRecord()
	lntest.Cold(b, map[string]func(){
		"jsonw":         func() { r.encode() },
		"encoding/json": func() { _, _ = json.Marshal(r) },
	})
}

// BenchmarkDecode is the first record that a process reads, by internal/jsonr and by
// encoding/json.
func BenchmarkDecode(b *testing.B) {
	data := benchRecord().encode()
	lntest.Cold(b, map[string]func(){
		"jsonr":         func() { _ = new(Endpoint).decode(data) },
		"encoding/json": func() { _ = json.Unmarshal(data, new(Endpoint)) },
	})
}

func benchRecord() Endpoint {
	return Endpoint{
		Network: "net1", ContainerID: "c1", IfName: "eth0", Phase: PhaseReady, Boot: "b", Netns: "/run/netns/c1", NetnsID: NetnsID{4, 5, 6},
		IPAM: "ipam-ln", Bridge: "br0", HostName: "veth0", MAC: "02:00:00:00:00:01", Rules: true, OwnRules: &OwnRules{MasqueradeIPv4: true},
		Addresses: []Address{{netip.MustParsePrefix("10.1.0.2/24"), netip.MustParseAddr("10.1.0.1")}},
		Links:     []Link{{Name: "br0"}, {Name: "veth0"}, {Name: "eth0"}}, Ports: []Port{{Protocol: "tcp", HostPort: 8080, ContainerPort: 80}},
	}
}
