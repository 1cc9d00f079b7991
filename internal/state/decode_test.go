package state

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// Records of other releases, and ones that were written by hand, are read as encoding/json reads them:
// a list of sources that is empty allows none, one that is missing allows all.
func TestDecodeAsJSON(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{}`,
		`{"Network":"n","ContainerID":"c","IfName":"eth0","Phase":"ready","Rules":true,"Unknown":{"a":[1]}}`,
		`{"network":"n","NETNSID":{"dev":4,"Ino":18446744073709551615,"cookie":0},"MAC":null,"Names":null,"OwnRules":null,"DNS":null}`,
		`{"Ports":[{"Protocol":"tcp","HostPort":1,"Sources":[]},{"Protocol":"udp","HostIP":"","Sources":null},{"HostIP":"::ffff:10.0.0.1","Sources":["10.0.0.0/8","fd00::/8"]}]}`,
		`{"Ports":[],"Links":[],"Addresses":[],"Routes":null}`,
		`{"Addresses":[{"Prefix":"::ffff:10.0.0.2/120","Gateway":"fe80::1%eth0"},{"Prefix":"","Gateway":""},{}]}`,
		`{"Routes":[{"Dst":"::/0","Gateway":"fd00::1","MTU":1400,"AdvMSS":1,"Priority":-1,"Table":0,"Scope":253},{"Table":null}]}`,
		`{"DNS":{"Nameservers":[],"Domain":"a\u0062","Search":["\"","\u2028"],"Options":null}}`,
		`{"Names":{"Own":["a",""],"Domain":"d","Responder":"bpf","Link":7},"Fast":3,"GatewayPriority":-2,"LinkName":"x","NextName":true}`,
		`{"OwnRules":{"MasqueradeIPv4":true,"SpoofCheck":true,"Source":["192.0.2.1","::ffff:192.0.2.2"]},"Config":{"a":[1,{"b":"\u2028"}]}}`,
		`{"OwnRules":{"Source":[]},"Tunnel":"wg0","Spare":"wg1","Workload":"a/b","PodUID":"u","Runtime":"r","Guard":"g","Backend":"iptables"}`,
	} {
		var want, got Endpoint
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if err := got.decode([]byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
			t.Errorf("%s (-encoding/json +decode):\n%s", text, diff)
		}
	}
	for _, text := range []string{`{"Network":1}`, `{"Rules":"yes"}`, `{"NetnsID":{"Ino":-1}}`, `{"Addresses":[{"Prefix":"10.0.0.0"}]}`, `{"Ports":[{"HostIP":"x"}]}`, `{"Links":{}}`, `[]`, `{`} {
		if new(Endpoint).decode([]byte(text)) == nil || json.Unmarshal([]byte(text), new(Endpoint)) == nil {
			t.Errorf("%s is read", text)
		}
	}
}
