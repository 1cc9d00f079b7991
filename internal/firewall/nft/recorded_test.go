package nft

import (
	"net"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
)

// written is what a plan puts into the kernel, in the words of nft.
func written(t *testing.T, n firewall.Network, e firewall.Endpoint) []string {
	t.Helper()
	p, err := ruleset.Plan(n, e)
	if err != nil {
		t.Fatal(err)
	}
	all := []string{}
	for _, e := range p.Elems {
		all = append(all, e.Owner+": "+e.String())
	}
	if p.Mark != nil {
		all = append(all, p.Mark.Comment())
	}
	slices.Sort(all)
	return all
}

var compareAddrs = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// recordedCases are put into the kernel and read back. want are the ports, if
// they come back in other words than those they were given in.
func recordedCases() []recordedCase {
	two, four := addrs("10.0.0.2", "fd00::2"), addrs("10.0.0.2")
	return []recordedCase{
		{name: "nothing", n: firewall.Network{}, e: firewall.Endpoint{}},
		{name: "both families", e: firewall.Endpoint{Addrs: two, Ports: []firewall.PortMap{tcp(8080, 80)}, Hairpin: true}},
		{name: "one family of two", e: firewall.Endpoint{Addrs: two, Ports: []firewall.PortMap{at("0.0.0.0", tcp(1, 2)), at("::", tcp(3, 4))}, Hairpin: true}},
		{name: "addresses", e: firewall.Endpoint{Addrs: two, Ports: []firewall.PortMap{at("127.0.0.1", tcp(53, 53)), at("192.0.2.1", tcp(53, 53)), at("::1", tcp(53, 53))}, Hairpin: true}},
		{name: "no localhost", e: firewall.Endpoint{Addrs: four, Ports: []firewall.PortMap{at("0.0.0.0", tcp(8080, 80)), at("0.0.0.0", upTo(99, tcp(90, 90)))}}},
		{name: "no localhost, both families", e: firewall.Endpoint{Addrs: two, Ports: []firewall.PortMap{tcp(8080, 80), from(tcp(8081, 81), "10.0.0.0/8", "fd00::/8")}}},
		{name: "ranges", e: firewall.Endpoint{Addrs: two, Ports: []firewall.PortMap{upTo(11, tcp(10, 20)), upTo(20000, tcp(10000, 10000))}, MasqueradeAll: true}},
		{name: "numbers kept one by one", e: firewall.Endpoint{Addrs: four, Ports: []firewall.PortMap{at("0.0.0.0", tcp(80, 80)), at("0.0.0.0", tcp(81, 81))}, Hairpin: true}},
		{name: "neighbours", e: firewall.Endpoint{Addrs: four, Ports: []firewall.PortMap{tcp(8080, 80), tcp(8081, 81)}, Hairpin: true}, want: []firewall.PortMap{at("0.0.0.0", upTo(8081, tcp(8080, 80)))}},
		{name: "clients", e: firewall.Endpoint{Addrs: two, Hairpin: true, Ports: []firewall.PortMap{
			from(tcp(443, 443), "10.0.0.0/8", "192.0.2.1/32", "fd00::/8"), from(at("0.0.0.0", upTo(60, tcp(50, 50))), "10.0.0.0/8"),
			at("0.0.0.0", from(tcp(444, 444), "0.0.0.0/0")), from(at("192.0.2.9", upTo(702, tcp(700, 5))), "10.0.0.0/8"),
		}}},
		{name: "protocols", e: firewall.Endpoint{Addrs: four, Hairpin: true, Ports: []firewall.PortMap{
			at("0.0.0.0", tcp(53, 53)), at("0.0.0.0", firewall.PortMap{Protocol: firewall.UDP, HostPort: 53, ContainerPort: 53}), at("0.0.0.0", firewall.PortMap{Protocol: firewall.SCTP, HostPort: 53, ContainerPort: 5}),
		}}},
		{name: "routed", n: firewall.Network{IPv4: firewall.Routed, IPv6: firewall.Routed}, e: firewall.Endpoint{Addrs: two, Ports: []firewall.PortMap{tcp(8080, 80), upTo(9, tcp(5, 50)), from(tcp(7, 7), "10.0.0.0/8", "fd00::/8")}},
			want: []firewall.PortMap{from(tcp(7, 7), "10.0.0.0/8", "fd00::/8"), upTo(54, tcp(50, 50)), tcp(80, 80)}},
		{name: "routed IPv6, translated IPv4", n: firewall.Network{IPv4: firewall.Published, IPv6: firewall.Routed}, e: firewall.Endpoint{Addrs: two, Ports: []firewall.PortMap{tcp(8080, 80)}, Hairpin: true}},
		{name: "trusted", n: firewall.Network{IPv4: firewall.Published, Trusted: []string{"eth0", "eth1"}}, e: firewall.Endpoint{Addrs: four, Hairpin: true, Ports: []firewall.PortMap{
			at("0.0.0.0", upTo(11, tcp(10, 20))), at("0.0.0.0", tcp(8080, 80)), at("0.0.0.0", tcp(8081, 81)),
		}}},
		{name: "network", n: firewall.Network{Internal: true, NoICC: true, Apart: true, AcceptMark: &firewall.Mark{Value: 0x10, Mask: 0xf0}, IPv6: firewall.Published}},
		{name: "masquerade", e: firewall.Endpoint{Addrs: two, Masquerade: both, Source: addrs("192.0.2.1", "2001:db8::1")}},
		{name: "spoofing", n: firewall.Network{NoICC: true}, e: firewall.Endpoint{Port: "veth0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}},
	}
}

type recordedCase struct {
	name string
	n    firewall.Network
	e    firewall.Endpoint
	want []firewall.PortMap
}

// The firewall reads back the rules that were put in place, in fewer words at most.
func TestRecorded(t *testing.T) {
	t.Parallel()
	for _, tt := range recordedCases() {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t)
			tt.n.Name, tt.n.Bridge, tt.e.Owner, tt.e.Bridge = "net", "br0", "net/c/eth0", "br0"
			mustApply(t, f, tt.n, tt.e)
			mustApply(t, f, firewall.Network{Name: "other", Bridge: "br9", NoICC: true}, firewall.Endpoint{Owner: "other/c/eth0", Bridge: "br9", Addrs: addrs("10.9.0.2"), Ports: []firewall.PortMap{tcp(9, 9)}})
			r, err := f.Recorded(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			n, e := r.Networks["net"], r.Endpoints["net/c/eth0"]
			if e.Bridge == "" && len(e.Ports) > 0 && !tt.e.Hairpin {
				e.Bridge = "br0" // no element names it
			}
			if diff := cmp.Diff(written(t, tt.n, tt.e), written(t, n, e)); diff != "" {
				t.Errorf("rules (-put in place +by what was read):\n%s", diff)
			}
			if tt.want == nil {
				tt.want = tt.e.Ports
			}
			byPort := func(a, b firewall.PortMap) int {
				return slices.Compare([]uint16{a.HostPort, uint16(a.Protocol)}, []uint16{b.HostPort, uint16(b.Protocol)})
			}
			slices.SortStableFunc(tt.want, byPort)
			slices.SortStableFunc(e.Ports, byPort)
			if diff := cmp.Diff(tt.want, e.Ports, compareAddrs); diff != "" {
				t.Errorf("ports (-want +got):\n%s", diff)
			}
			if len(e.Ports) > 0 && (e.Hairpin != tt.e.Hairpin || e.MasqueradeAll != tt.e.MasqueradeAll || !slices.Equal(e.Addrs, tt.e.Addrs)) {
				t.Errorf("%+v, want %+v", e, tt.e)
			}
		})
	}
}

func TestRecordedNothing(t *testing.T) {
	t.Parallel()
	r, err := start(t).Recorded(t.Context())
	if err != nil || len(r.Networks)+len(r.Endpoints) != 0 {
		t.Errorf("%+v, %v, want nothing", r, err)
	}
}

// The owners of chain marks are cut; the network is found nevertheless.
func TestRecordedLongNames(t *testing.T) {
	t.Parallel()
	f := start(t)
	n := firewall.Network{Name: "libnet:" + string(slices.Repeat([]byte{'n'}, 190)) + "/", Bridge: "br0", IPv4: firewall.Published, AcceptMark: &firewall.Mark{Value: 1, Mask: 1}}
	mustApply(t, f, n, firewall.Endpoint{})
	r, err := f.Recorded(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(written(t, n, firewall.Endpoint{}), written(t, r.Networks[firewall.Key(n.Name)], firewall.Endpoint{})); diff != "" {
		t.Error(diff)
	}
}

// Each flag of a network is an element of its own, and is read back from it.
func TestRecordedFlags(t *testing.T) {
	t.Parallel()
	flags := 0
	for i := range reflect.TypeFor[firewall.Network]().NumField() {
		n := firewall.Network{Name: "net", Bridge: "br0", IPv4: firewall.Published}
		field := reflect.ValueOf(&n).Elem().Field(i)
		if field.Kind() != reflect.Bool {
			continue
		}
		flags++
		name := reflect.TypeFor[firewall.Network]().Field(i).Name
		t.Run(name, func(t *testing.T) {
			f := start(t)
			without := len(written(t, n, firewall.Endpoint{}))
			field.SetBool(true)
			if got := len(written(t, n, firewall.Endpoint{})); got <= without {
				t.Errorf("%s has no element: with it there are %d, without it %d", name, got, without)
			}
			mustApply(t, f, n, firewall.Endpoint{})
			r, err := f.Recorded(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(n, r.Networks["net"]); diff != "" {
				t.Errorf("(-put in place +read):\n%s", diff)
			}
		})
	}
	if flags < 4 {
		t.Errorf("only %d fields were looked at", flags)
	}
}
