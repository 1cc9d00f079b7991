package policy

import (
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/firewall"
)

func TestJoin(t *testing.T) {
	mark, other := &firewall.Mark{Value: 1, Mask: 1}, &firewall.Mark{Value: 2, Mask: 2}
	nat := firewall.Network{IPv4: firewall.Published, IPv6: firewall.Published}
	routed := firewall.Network{IPv4: firewall.Routed, IPv6: firewall.Routed}
	tests := []struct {
		name    string
		n, o    firewall.Network
		want    firewall.Network
		comment string
	}{
		{"open and open", firewall.Network{}, firewall.Network{}, firewall.Network{}, ""},
		{"open and nat", firewall.Network{}, nat, nat, ""},
		{"nat and routed", nat, routed, nat, "a port by the container's address is no published one"},
		{"unprotected and open", firewall.Network{IPv4: firewall.Unprotected}, firewall.Network{}, firewall.Network{IPv4: firewall.Unprotected}, ""},
		{"by family", firewall.Network{IPv4: firewall.Routed}, firewall.Network{IPv6: firewall.Published},
			firewall.Network{IPv4: firewall.Routed, IPv6: firewall.Published}, ""},
		{"internal and icc", firewall.Network{Internal: true}, firewall.Network{NoICC: true, Apart: true, NoHost: true},
			firewall.Network{Internal: true, NoICC: true, Apart: true, NoHost: true}, ""},
		{"trusted by both", with(nat, []string{"a", "b"}, nil), with(nat, []string{"b", "c"}, nil), with(nat, []string{"b"}, nil), ""},
		{"trusted by one, the other open", with(nat, []string{"a"}, mark), firewall.Network{}, with(nat, []string{"a"}, mark), "an open network refuses nothing"},
		{"trusted by one, the other closed", with(nat, []string{"a"}, mark), nat, with(nat, []string{}, nil), ""},
		{"one mark", with(nat, nil, mark), with(routed, nil, mark), with(nat, nil, mark), ""},
		{"two marks", with(nat, nil, mark), with(nat, nil, other), nat, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ab, ba := Join(tt.n, tt.o), Join(tt.o, tt.n)
			for _, got := range []firewall.Network{ab, ba} {
				if len(got.Trusted) == 0 {
					got.Trusted = tt.want.Trusted
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
		})
	}
}

func with(n firewall.Network, trusted []string, mark *firewall.Mark) firewall.Network {
	n.Trusted, n.AcceptMark = trusted, mark
	return n
}

// ID tells networks apart by whatever they ask of a bridge, and by nothing else.
func TestID(t *testing.T) {
	mark := &firewall.Mark{Value: 1, Mask: 1}
	seen := map[string]int{}
	for i, n := range []firewall.Network{
		{}, {Internal: true}, {NoICC: true}, {Apart: true}, {NoHost: true}, {IPv4: firewall.Published}, {IPv6: firewall.Published},
		{IPv4: firewall.Routed}, {Trusted: []string{"a"}}, {Trusted: []string{"a", "b"}}, {Trusted: []string{"ab"}}, {AcceptMark: mark},
	} {
		id := ID(n)
		if at, again := seen[id]; again {
			t.Errorf("networks %d and %d have one ID", at, i)
		}
		seen[id] = i
		n.Name, n.Bridge, n.Tunnel, n.Guard = "n", "br", "vx", "g"
		if ID(n) != id {
			t.Errorf("network %d: its name or bridge is in its ID", i)
		}
	}
}

// A record that has an ID alone tells what was asked for.
func TestWithID(t *testing.T) {
	for _, n := range []firewall.Network{
		{}, {Internal: true}, {NoICC: true, IPv6: firewall.Routed}, {Apart: true, NoHost: true, IPv4: firewall.Published, IPv6: firewall.Unprotected},
	} {
		got, ok := WithID(ID(n))
		if diff := cmp.Diff(n, got); !ok || diff != "" {
			t.Errorf("%+v: %v (-want +got):\n%s", n, ok, diff)
		}
	}
	if got, ok := WithID(ID(firewall.Network{IPv4: firewall.Published, Trusted: []string{"wg0"}})); ok {
		t.Errorf("one with a trusted interface: %+v", got)
	}
}

// A field of firewall.Network that closes a bridge is part of what a network asks of it,
// of what all networks ask together, and of the name of that.
func TestEveryFlagIsJoined(t *testing.T) {
	zero := firewall.Network{}
	flags := 0
	for i := range reflect.TypeFor[firewall.Network]().NumField() {
		var n firewall.Network
		f := reflect.ValueOf(&n).Elem().Field(i)
		if f.Kind() != reflect.Bool {
			continue
		}
		flags++
		f.SetBool(true)
		name := reflect.TypeFor[firewall.Network]().Field(i).Name
		if !reflect.DeepEqual(Of(n), n) {
			t.Errorf("Of leaves out %s", name)
		}
		if !reflect.DeepEqual(Join(zero, n), n) || !reflect.DeepEqual(Join(n, zero), n) {
			t.Errorf("Join leaves out %s", name)
		}
		if ID(n) == ID(zero) {
			t.Errorf("ID leaves out %s", name)
		}
	}
	if flags < 4 {
		t.Errorf("only %d fields were looked at", flags)
	}
}

// Records and indexes of an earlier release name guards by their ID: a new field of
// firewall.Network must not change the ID of a network that does not set it.
func TestIDStays(t *testing.T) {
	all := firewall.Network{IPv4: firewall.Published, IPv6: firewall.Routed, NoICC: true, Trusted: []string{"eth0"}, AcceptMark: &firewall.Mark{Value: 1, Mask: 1}}
	for want, n := range map[string]firewall.Network{"7ffa2dd506a90e8d": {}, "de7f3bc88a52b50a": all} {
		if got := ID(n); got != want {
			t.Errorf("%+v has the ID %s, in earlier releases %s", n, got, want)
		}
	}
}
