package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func prefixes(ss ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range ss {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

func tcp(host, container uint16) PortMap {
	return PortMap{Protocol: TCP, HostPort: host, ContainerPort: container}
}

func at(ip string, m PortMap) PortMap {
	m.HostIP = netip.MustParseAddr(ip)
	return m
}

func upTo(last uint16, m PortMap) PortMap {
	m.HostPortEnd = last
	return m
}

func from(m PortMap, sources ...string) PortMap {
	m.Sources = prefixes(sources...)
	return m
}

func TestPlanPorts(t *testing.T) {
	v4 := addrs("10.0.0.2")
	tests := []struct {
		name      string
		n         Network
		noHairpin bool
		addrs     []netip.Addr
		ports     []PortMap
		want      []string
	}{
		{name: "any address, both families", addrs: addrs("10.0.0.2", "fd00::2", "10.0.0.9"), ports: []PortMap{tcp(8080, 80)},
			want: []string{"anyport4 { tcp . 8080 : 10.0.0.2 . 80 }", "anyport6 { tcp . 8080 : fd00::2 . 80 }"}},
		{name: "unspecified is any of its family", addrs: addrs("10.0.0.2", "fd00::2"), ports: []PortMap{at("0.0.0.0", tcp(1, 2)), at("::", tcp(3, 4))},
			want: []string{"anyport4 { tcp . 1 : 10.0.0.2 . 2 }", "anyport6 { tcp . 3 : fd00::2 . 4 }"}},
		{name: "one address", addrs: v4, ports: []PortMap{at("127.0.0.1", tcp(53, 53)), at("::1", tcp(53, 53))},
			want: []string{"port4 { 127.0.0.1 . tcp . 53 : 10.0.0.2 . 53 }"}},
		{name: "a range that keeps its numbers", addrs: v4, ports: []PortMap{upTo(20000, tcp(10000, 10000))},
			want: []string{"span4 { 0.0.0.0-255.255.255.255 . 0.0.0.0-255.255.255.255 . tcp . 10000-20000 : 10.0.0.2 }"}},
		{name: "a range that does not", addrs: v4, ports: []PortMap{upTo(11, tcp(10, 20))},
			want: []string{"anyport4 { tcp . 10 : 10.0.0.2 . 20 }", "anyport4 { tcp . 11 : 10.0.0.2 . 21 }"}},
		{name: "some clients", addrs: v4, ports: []PortMap{from(tcp(443, 443), "10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8", "fd00::/8", "192.0.2.1/32")},
			want: []string{"from4 { 10.0.0.0-10.255.255.255 . 0.0.0.0-255.255.255.255 . tcp . 443 : 10.0.0.2 . 443 }",
				"from4 { 192.0.2.1 . 0.0.0.0-255.255.255.255 . tcp . 443 : 10.0.0.2 . 443 }"}},
		{name: "some clients of a range at an address", addrs: v4, ports: []PortMap{from(at("192.0.2.9", upTo(9, tcp(5, 5))), "10.0.0.0/8")},
			want: []string{"span4 { 10.0.0.0-10.255.255.255 . 192.0.2.9 . tcp . 5-9 : 10.0.0.2 }"}},
		{name: "no clients", addrs: v4, ports: []PortMap{{Protocol: TCP, HostPort: 1, ContainerPort: 1, Sources: []netip.Prefix{}}}},
		{name: "routed", n: Network{IPv4: Routed}, addrs: v4, ports: []PortMap{tcp(8080, 80), tcp(8081, 80), upTo(9, tcp(5, 50))},
			want: []string{"openspan4 { 0.0.0.0-255.255.255.255 . 10.0.0.2 . tcp . 50-54 }", "open4 { 10.0.0.2 . tcp . 80 }"}},
		{name: "not by localhost", noHairpin: true, addrs: v4, ports: []PortMap{tcp(8080, 80)},
			want: []string{"from4 { 0.0.0.0-255.255.255.255 . 0.0.0.0-126.255.255.255 . tcp . 8080 : 10.0.0.2 . 80 }",
				"from4 { 0.0.0.0-255.255.255.255 . 128.0.0.0-255.255.255.255 . tcp . 8080 : 10.0.0.2 . 80 }"}},
		{name: "routed, some clients", n: Network{IPv4: Routed}, addrs: v4, ports: []PortMap{from(tcp(8080, 80), "10.0.0.0/8")},
			want: []string{"openspan4 { 10.0.0.0-10.255.255.255 . 10.0.0.2 . tcp . 80 }"}},
		{name: "trusted interfaces", n: Network{IPv4: Published, Trusted: []string{"eth0"}}, addrs: v4, ports: []PortMap{tcp(8080, 80)},
			want: []string{"open4 { 10.0.0.2 . tcp . 80 }", "anyport4 { tcp . 8080 : 10.0.0.2 . 80 }"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := Endpoint{Owner: "o", Bridge: "br0", Addrs: tt.addrs, Ports: tt.ports, Hairpin: !tt.noHairpin}
			p, err := planPorts(tt.n, e)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range p.elems {
				if strings.HasPrefix(e.set.name, "hairpin") {
					continue
				}
				got = append(got, strings.TrimPrefix(e.String(), "inet libnet "))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPlanRefusesPorts(t *testing.T) {
	for _, ports := range [][]PortMap{
		{{Protocol: 1, HostPort: 1, ContainerPort: 1}},
		{tcp(0, 80)}, {tcp(80, 0)}, {upTo(7, tcp(8, 8))}, {upTo(20, tcp(10, 65530))},
		{tcp(80, 80), tcp(80, 81)}, {tcp(80, 80), at("0.0.0.0", tcp(80, 81))}, {upTo(90, tcp(80, 80)), upTo(95, tcp(90, 1))},
	} {
		e := Endpoint{Owner: "o", Bridge: "br0", Addrs: addrs("10.0.0.2"), Ports: ports}
		if _, err := plan(Network{}, e); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: got %v, want ErrInvalid", ports, err)
		}
	}
}

// Two containers that want the same port, in every way a port can be wanted.
func TestPortHeld(t *testing.T) {
	t.Parallel()
	tests := []struct {
		held, want PortMap
		conflict   bool
	}{
		{tcp(80, 80), tcp(80, 81), true},
		{tcp(80, 80), tcp(81, 80), false},
		{tcp(80, 80), PortMap{Protocol: UDP, HostPort: 80, ContainerPort: 80}, false},
		{tcp(80, 80), at("192.0.2.1", tcp(80, 80)), true},
		{at("192.0.2.1", tcp(80, 80)), tcp(80, 80), true},
		{at("192.0.2.1", tcp(80, 80)), at("192.0.2.1", tcp(80, 80)), true},
		{at("192.0.2.1", tcp(80, 80)), at("192.0.2.2", tcp(80, 80)), false},
		{at("127.0.0.2", tcp(80, 80)), at("127.0.0.3", tcp(80, 80)), false},
		{at("0.0.0.0", tcp(80, 80)), at("::", tcp(80, 80)), false},
		{tcp(80, 80), at("fd00::9", tcp(80, 80)), true},
		{upTo(90, tcp(80, 80)), tcp(85, 1), true},
		{upTo(90, tcp(80, 1080)), tcp(85, 1), true},
		{tcp(85, 1), upTo(90, tcp(80, 80)), true},
		{tcp(85, 1), upTo(190, tcp(80, 80)), true},
		{upTo(90, tcp(80, 80)), upTo(99, tcp(90, 90)), true},
		{upTo(90, tcp(80, 80)), upTo(99, tcp(91, 91)), false},
		{from(tcp(80, 80), "10.0.0.0/8"), tcp(80, 80), true},
		{from(tcp(80, 80), "10.0.0.0/8"), from(tcp(80, 80), "192.0.2.0/24"), true},
		{at("192.0.2.1", upTo(90, tcp(80, 80))), at("192.0.2.2", tcp(85, 1)), false},
		{at("192.0.2.1", upTo(90, tcp(80, 80))), at("192.0.2.1", tcp(85, 1)), true},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s then %s", tt.held, tt.want), func(t *testing.T) {
			f := start(t)
			one := Endpoint{Owner: "one", Bridge: "br0", Addrs: addrs("10.0.0.2", "fd00::2"), Ports: []PortMap{tt.held}}
			two := Endpoint{Owner: "two", Bridge: "br0", Addrs: addrs("10.0.0.3", "fd00::3"), Ports: []PortMap{tcp(4000, 1), tt.want}}
			mustApply(t, f, Network{}, one)
			_, err := f.Apply(t.Context(), Network{}, two)
			var held *PortHeldError
			if got := errors.As(err, &held); got != tt.conflict || err != nil && !got {
				t.Errorf("got %v, want a conflict: %v", err, tt.conflict)
			}
			if tt.conflict {
				wantOwners(t, f, "one")
				mustRemove(t, f, one)
				mustApply(t, f, Network{}, two)
			}
			mustVerify(t, f, Network{}, two)
			mustRemove(t, f, one)
			mustRemove(t, f, two)
			mustRemoveNetwork(t, f, Network{Name: "any"})
			wantTables(t, f, false, false)
		})
	}
}

// The kinds of ports there are, removed by whatever is known of them.
func TestRemovePorts(t *testing.T) {
	t.Parallel()
	n := Network{Name: "net", Bridge: "br0", IPv4: Published, IPv6: Routed, Trusted: []string{"eth0"}, AcceptMark: &Mark{1, 0xff}}
	e := Endpoint{
		Owner: "one", Bridge: "br0", Port: "veth0", Addrs: addrs("10.0.0.2", "fd00::2"), Hairpin: true, MasqueradeAll: true,
		Masquerade: both, Source: addrs("192.0.2.1", "fd20::1"),
		Ports: []PortMap{tcp(80, 80), at("192.0.2.1", tcp(81, 81)), upTo(90, tcp(85, 85)), upTo(97, tcp(95, 1)), from(tcp(99, 99), "10.0.0.0/8")},
	}
	for name, forget := range map[string]func(*Endpoint){
		"all known":      func(*Endpoint) {},
		"without ports":  func(e *Endpoint) { e.Ports = nil },
		"without bridge": func(e *Endpoint) { e.Bridge = "" },
		"owner alone":    func(e *Endpoint) { *e = Endpoint{Owner: e.Owner} },
		"changed conf":   func(e *Endpoint) { e.Hairpin, e.MasqueradeAll, e.Source, e.Masquerade = false, false, nil, Families{} },
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t)
			for range 2 {
				mustApply(t, f, n, e)
				mustVerify(t, f, n, e)
			}
			some := e
			forget(&some)
			mustRemove(t, f, some)
			wantOwners(t, f)
			mustRemoveNetwork(t, f, Network{Name: n.Name})
			wantTables(t, f, false, false)
		})
	}
}

// What a network was no longer configured for goes with ApplyNetwork.
func TestApplyNetwork(t *testing.T) {
	t.Parallel()
	f := start(t)
	old := Network{Name: "net", Bridge: "br0", Internal: true, NoICC: true, Apart: true, IPv4: Routed, IPv6: Published,
		Trusted: []string{"eth0", "eth1"}, AcceptMark: &Mark{1, 1}}
	now := Network{Name: "net", Bridge: "br0", IPv4: Published, Trusted: []string{"eth1"}, AcceptMark: &Mark{2, 2}}
	for range 2 {
		for _, n := range []Network{old, now} {
			if err := f.ApplyNetwork(t.Context(), n); err != nil {
				t.Fatal(err)
			}
			mustVerify(t, f, n, Endpoint{})
		}
	}
	if err := f.Verify(t.Context(), old, Endpoint{}); !errors.Is(err, ErrMissing) {
		t.Errorf("the old network: got %v, want ErrMissing", err)
	}
	if err := f.ApplyNetwork(t.Context(), Network{Name: "net", Bridge: "br0"}); err != nil {
		t.Fatal(err)
	}
	mustRemoveNetwork(t, f, Network{Name: "other"})
	wantTables(t, f, false, false) // nothing of "net" was left in them
}

// The error names the port that is held, of all that were asked for.
func TestPortHeldNamesIt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		held, want PortMap
		says       string
	}{
		{tcp(85, 1), upTo(90, tcp(80, 80)), "tcp 0.0.0.0:85"},
		{at("192.0.2.1", tcp(85, 1)), upTo(190, tcp(80, 80)), "tcp 192.0.2.1:85"},
		{upTo(90, tcp(80, 80)), upTo(99, tcp(88, 88)), "tcp 0.0.0.0:88-90"},
	} {
		f := start(t)
		mustApply(t, f, Network{}, Endpoint{Owner: "one", Bridge: "br0", Addrs: addrs("10.0.0.2"), Ports: []PortMap{tt.held}})
		_, err := f.Apply(t.Context(), Network{}, Endpoint{Owner: "two", Bridge: "br0", Addrs: addrs("10.0.0.3"), Ports: []PortMap{tt.want}})
		var held *PortHeldError
		if !errors.As(err, &held) || held.Port != tt.says {
			t.Errorf("%s held, %s asked for: %v, want %s", tt.held, tt.want, held, tt.says)
		}
	}
}
