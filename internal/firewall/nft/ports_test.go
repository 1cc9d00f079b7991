package nft

import (
	"errors"
	"fmt"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// Two containers that want the same port, in every way a port can be wanted.
func TestPortHeld(t *testing.T) {
	t.Parallel()
	tests := []struct {
		held, want firewall.PortMap
		conflict   bool
	}{
		{tcp(80, 80), tcp(80, 81), true},
		{tcp(80, 80), tcp(81, 80), false},
		{tcp(80, 80), firewall.PortMap{Protocol: firewall.UDP, HostPort: 80, ContainerPort: 80}, false},
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
			one := firewall.Endpoint{Owner: "one", Bridge: "br0", Addrs: addrs("10.0.0.2", "fd00::2"), Ports: []firewall.PortMap{tt.held}}
			two := firewall.Endpoint{Owner: "two", Bridge: "br0", Addrs: addrs("10.0.0.3", "fd00::3"), Ports: []firewall.PortMap{tcp(4000, 1), tt.want}}
			mustApply(t, f, firewall.Network{}, one)
			_, err := f.Apply(t.Context(), firewall.Network{}, two)
			var held *firewall.PortHeldError
			if got := errors.As(err, &held); got != tt.conflict || err != nil && !got {
				t.Errorf("got %v, want a conflict: %v", err, tt.conflict)
			}
			if tt.conflict {
				wantOwners(t, f, "one")
				mustRemove(t, f, one)
				mustApply(t, f, firewall.Network{}, two)
			}
			mustVerify(t, f, firewall.Network{}, two)
			mustRemove(t, f, one)
			mustRemove(t, f, two)
			mustRemoveNetwork(t, f, firewall.Network{Name: "any"})
			wantTables(t, f, false, false)
		})
	}
}

// The kinds of ports there are, removed by whatever is known of them.
func TestRemovePorts(t *testing.T) {
	t.Parallel()
	n := firewall.Network{Name: "net", Bridge: "br0", IPv4: firewall.Published, IPv6: firewall.Routed, Trusted: []string{"eth0"}, AcceptMark: &firewall.Mark{Value: 1, Mask: 0xff}}
	e := firewall.Endpoint{
		Owner: "one", Bridge: "br0", Port: "veth0", Addrs: addrs("10.0.0.2", "fd00::2"), Hairpin: true, MasqueradeAll: true,
		Masquerade: both, Source: addrs("192.0.2.1", "fd20::1"),
		Ports: []firewall.PortMap{tcp(80, 80), at("192.0.2.1", tcp(81, 81)), upTo(90, tcp(85, 85)), upTo(97, tcp(95, 1)), from(tcp(99, 99), "10.0.0.0/8")},
	}
	for name, forget := range map[string]func(*firewall.Endpoint){
		"all known":      func(*firewall.Endpoint) {},
		"without ports":  func(e *firewall.Endpoint) { e.Ports = nil },
		"without bridge": func(e *firewall.Endpoint) { e.Bridge = "" },
		"owner alone":    func(e *firewall.Endpoint) { *e = firewall.Endpoint{Owner: e.Owner} },
		"changed conf": func(e *firewall.Endpoint) {
			e.Hairpin, e.MasqueradeAll, e.Source, e.Masquerade = false, false, nil, firewall.Families{}
		},
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
			mustRemoveNetwork(t, f, firewall.Network{Name: n.Name})
			wantTables(t, f, false, false)
		})
	}
}

// ApplyNetwork removes the elements that a network is no longer configured for.
func TestApplyNetwork(t *testing.T) {
	t.Parallel()
	f := start(t)
	old := firewall.Network{Name: "net", Bridge: "br0", Internal: true, NoICC: true, Apart: true, IPv4: firewall.Routed, IPv6: firewall.Published,
		Trusted: []string{"eth0", "eth1"}, AcceptMark: &firewall.Mark{Value: 1, Mask: 1}}
	now := firewall.Network{Name: "net", Bridge: "br0", IPv4: firewall.Published, Trusted: []string{"eth1"}, AcceptMark: &firewall.Mark{Value: 2, Mask: 2}}
	for range 2 {
		for _, n := range []firewall.Network{old, now} {
			if err := f.ApplyNetwork(t.Context(), n); err != nil {
				t.Fatal(err)
			}
			mustVerify(t, f, n, firewall.Endpoint{})
		}
	}
	if err := f.Verify(t.Context(), old, firewall.Endpoint{}); !errors.Is(err, firewall.ErrMissing) {
		t.Errorf("the old network: got %v, want ErrMissing", err)
	}
	if err := f.ApplyNetwork(t.Context(), firewall.Network{Name: "net", Bridge: "br0"}); err != nil {
		t.Fatal(err)
	}
	mustRemoveNetwork(t, f, firewall.Network{Name: "other"})
	wantTables(t, f, false, false) // nothing of "net" was left in them
}

// The error names the port that is held, of all that were asked for.
func TestPortHeldNamesIt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		held, want firewall.PortMap
		says       string
	}{
		{tcp(85, 1), upTo(90, tcp(80, 80)), "tcp 0.0.0.0:85"},
		{at("192.0.2.1", tcp(85, 1)), upTo(190, tcp(80, 80)), "tcp 192.0.2.1:85"},
		{upTo(90, tcp(80, 80)), upTo(99, tcp(88, 88)), "tcp 0.0.0.0:88-90"},
	} {
		f := start(t)
		mustApply(t, f, firewall.Network{}, firewall.Endpoint{Owner: "one", Bridge: "br0", Addrs: addrs("10.0.0.2"), Ports: []firewall.PortMap{tt.held}})
		_, err := f.Apply(t.Context(), firewall.Network{}, firewall.Endpoint{Owner: "two", Bridge: "br0", Addrs: addrs("10.0.0.3"), Ports: []firewall.PortMap{tt.want}})
		var held *firewall.PortHeldError
		if !errors.As(err, &held) || held.Port != tt.says {
			t.Errorf("%s held, %s asked for: %v, want %s", tt.held, tt.want, held, tt.says)
		}
	}
}
