package nft

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/lntest"
)

func TestMasquerade(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.wantSource(l.a, "192.0.2.2", "10.10.0.2")
	l.wantSource(l.a, "fd20::2", "fd10::2")

	l.eA.Masquerade = both
	mustApply(t, l.f, l.n, l.eA)
	l.wantSource(l.a, "192.0.2.2", "192.0.2.1")
	l.wantSource(l.a, "fd20::2", "fd20::1")
	// A packet that stays on the bridge keeps its source, bridged or routed; so does another container.
	l.wantSource(l.a, "10.10.0.3", "10.10.0.2")
	l.wantSource(l.a, "fd10::3", "fd10::2")
	l.wantSource(l.a, "10.11.0.3", "10.10.0.2")
	l.wantSource(l.a, "fd11::3", "fd10::2")
	l.wantSource(l.a, "10.10.0.1", "10.10.0.2")
	l.wantSource(l.b, "192.0.2.2", "10.10.0.3")
	l.wantSource(l.b, "fd20::2", "fd10::3")

	mustRemove(t, l.f, l.eA)
	l.wantSource(l.a, "192.0.2.2", "10.10.0.2")
	l.wantSource(l.a, "fd20::2", "fd10::2")
}

// A datagram to a group leaves with the source it has.
func TestMasqueradeNotMulticast(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.eA.Masquerade = both
	mustApply(t, l.f, l.n, l.eA)
	tests := []struct{ group, from, unicast, host string }{
		{"239.1.2.3", "10.10.0.2", "192.0.2.2", "192.0.2.1"},
		{"ff05::4711", "fd10::2", "fd20::2", "fd20::1"},
	}
	for _, tt := range tests {
		lntest.RouteGroup(t, tt.from, tt.group, "br0", "out")
		in := lntest.ListenGroup(t, l.out, tt.group, servicePort+1)
		for to, want := range map[string]string{tt.group: tt.from, tt.unicast: tt.host} {
			if got := lntest.SourceFrom(t, l.a, in, tt.from, "eth0", to); got != want {
				t.Errorf("to %s: seen as %s, want %s", to, got, want)
			}
		}
	}
}

func TestInternal(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.must(lntest.In(t, l.out, func() error { return nil }))
	ways := []struct{ from, at, to string }{
		{l.a, l.out, "192.0.2.2"}, {l.a, l.out, "fd20::2"}, {l.out, l.b, "10.10.0.3"}, {l.out, l.b, "fd10::3"},
	}
	for _, w := range ways {
		if !l.heard(w.from, w.at, w.to, lntest.WaitForAnswer) {
			t.Fatalf("to %s: nothing arrives before there is a rule", w.to)
		}
	}
	l.n.Internal = true
	mustApply(t, l.f, l.n, l.eA)
	for _, w := range ways {
		if l.heard(w.from, w.at, w.to, lntest.WaitForNone) {
			t.Errorf("to %s: arrives", w.to)
		}
	}
	// The bridge and the host stay in reach.
	l.wantSource(l.a, "10.10.0.3", "10.10.0.2")
	l.wantSource(l.a, "fd10::3", "fd10::2")
	l.wantSource(l.a, "10.11.0.3", "10.10.0.2")
	l.wantSource(l.a, "10.10.0.1", "10.10.0.2")

	mustRemoveNetwork(t, l.f, l.n)
	l.wantSource(l.out, "10.10.0.3", "192.0.2.2")
}

func TestNoICC(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.wantSource(l.a, "10.11.0.3", "10.10.0.2")
	l.wantSource(l.a, "fd11::3", "fd10::2")

	l.n.NoICC = true
	mustApply(t, l.f, l.n, l.eA)
	l.wantNothing(l.a, "10.11.0.3")
	l.wantNothing(l.a, "fd11::3")
	l.wantSource(l.a, "192.0.2.2", "10.10.0.2")
	l.wantSource(l.a, "fd20::2", "fd10::2")
	l.wantSource(l.a, "10.10.0.1", "10.10.0.2")
}

func TestSourceMAC(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	setMAC := func(mac net.HardwareAddr) {
		l.must(lntest.In(t, l.a, func() error {
			eth0, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return netlink.LinkSetHardwareAddr(eth0, mac)
		}))
	}
	mine, theirs := net.HardwareAddr{2, 0, 0, 0, 0, 0xa}, net.HardwareAddr{2, 0, 0, 0, 0, 0xee}
	l.eA.MAC = mine
	mustApply(t, l.f, l.n, l.eA)
	setMAC(mine)
	l.wantSource(l.a, "10.10.0.1", "10.10.0.2")
	l.wantSource(l.a, "fd10::3", "fd10::2")
	setMAC(theirs)
	l.wantNothing(l.a, "10.10.0.1")
	l.wantNothing(l.a, "10.10.0.3")
	l.wantSource(l.b, "10.10.0.1", "10.10.0.3") // another port is free
	mustRemove(t, l.f, l.eA)
	l.wantSource(l.a, "10.10.0.1", "10.10.0.2")
}
