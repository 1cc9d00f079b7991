package nft

import (
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// Connections are let through unasked only while no network of the host is
// internal, apart, without traffic between containers, or has a tunnel.
func TestStrict(t *testing.T) {
	t.Parallel()
	f := start(t)
	want := func(n int, when string) {
		t.Helper()
		var elems []ruleset.Elem
		err := f.do(t.Context(), func(c *conn) (err error) {
			elems, err = c.elems(&ruleset.Strict)
			return err
		})
		if err != nil || len(elems) != n {
			t.Errorf("%s: %d elements, %v; want %d", when, len(elems), err, n)
		}
	}
	change := func(n firewall.Network) {
		t.Helper()
		if err := f.ApplyNetwork(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	closed := firewall.Network{Name: "closed", Bridge: "br0", IPv4: firewall.Published}
	mustApply(t, f, closed, firewall.Endpoint{})
	want(0, "a closed network")
	for i, n := range []firewall.Network{
		{Name: "a", Bridge: "br1", Internal: true}, {Name: "a", Bridge: "br1", NoICC: true},
		{Name: "a", Bridge: "br1", Apart: true}, {Name: "a", Bridge: "br1", Tunnel: "vx1"},
	} {
		mustApply(t, f, n, firewall.Endpoint{})
		want(2, "a strict network beside it")
		mustVerify(t, f, n, firewall.Endpoint{})
		other := n
		other.Name, other.Bridge = "b", "br2"
		change(other)
		mustRemoveNetwork(t, f, n)
		want(2, "one of two removed")
		if i%2 == 0 {
			mustRemoveNetwork(t, f, other)
		} else {
			change(firewall.Network{Name: "b", Bridge: "br2", IPv4: firewall.Published})
		}
		want(0, "none is strict any more")
		mustRemoveNetwork(t, f, other)
	}
	// Rules of an earlier version have no such elements.
	a := firewall.Network{Name: "a", Bridge: "br1", Internal: true}
	mustApply(t, f, a, firewall.Endpoint{})
	old := func(b *batch) {
		for _, e := range ruleset.StrictElems() {
			b.Del(e)
		}
		b.Add(unix.NFT_MSG_DELRULE, 0, unix.NFPROTO_INET, func(a *nfnl.Attrs) {
			a.String(unix.NFTA_RULE_TABLE, firewall.TableName)
			a.String(unix.NFTA_RULE_CHAIN, "forward")
		})
	}
	send(t, f, old)
	mustApply(t, f, closed, firewall.Endpoint{})
	want(2, "rules mended by another network's Apply")
	send(t, f, old)
	change(closed)
	want(2, "rules mended by another network's ApplyNetwork")
	mustRemoveNetwork(t, f, a)
	want(0, "the strict one removed")
	mustRemoveNetwork(t, f, closed)
	wantTables(t, f, false, false)
}

// A packet that came through unasked is asked again, on the same connection, as soon as
// its network is strict.
func TestStrictEndsConnections(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	n := firewall.Network{Name: l.n.Name, Bridge: l.n.Bridge, IPv4: firewall.Published, IPv6: firewall.Published}
	for _, to := range []string{"192.0.2.2", "fd20::2"} {
		mustApply(t, l.f, n, firewall.Endpoint{})
		var in, out *net.UDPConn
		at := &net.UDPAddr{IP: net.ParseIP(to), Port: servicePort + 1}
		l.must(lntest.In(t, l.out, func() (err error) { in, err = net.ListenUDP("udp", at); return err }))
		l.must(lntest.In(t, l.a, func() (err error) { out, err = net.DialUDP("udp", nil, at); return err }))
		heard := func(want bool, when string) {
			t.Helper()
			got, err := lntest.Heard(in, when, map[bool]time.Duration{true: lntest.WaitForAnswer, false: lntest.WaitForNone}[want], func() error {
				_, err := out.Write([]byte(when))
				return err
			})
			l.must(err)
			if got != want {
				t.Errorf("to %s, %s: heard %t, want %t", to, when, got, want)
			}
		}
		heard(true, "closed to others")
		heard(true, "the connection known")
		strict := n
		strict.Internal = true
		l.must(l.f.ApplyNetwork(t.Context(), strict))
		heard(false, "internal")
		l.must(l.f.ApplyNetwork(t.Context(), n))
		heard(true, "not internal any more")
		l.must(l.f.ApplyNetwork(t.Context(), firewall.Network{Name: "other", Bridge: "elsewhere", Internal: true}))
		heard(true, "beside a strict network")
		mustRemoveNetwork(t, l.f, firewall.Network{Name: "other"})
		l.must(errors.Join(in.Close(), out.Close()))
	}
}
