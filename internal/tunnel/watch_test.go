package tunnel

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// Every way to damage a tunnel is told of; what goes on at a port of a bridge
// and with its neighbours is not.
func TestWatch(t *testing.T) {
	t.Parallel()
	h := newTunnels(t)
	want := testTunnel()
	want.Name = "vx-0"
	mustTunnel(t, h, want)
	br, err := link.New(h.conn, host.New(h.conn, nil), nil).EnsureBridge(t.Context(), link.Bridge{Name: "br0", MTU: 1500, IPv6: host.IPv6Off})
	if err != nil {
		t.Fatal(err)
	}
	d, err := h.conn.Device("vx-0")
	if err != nil {
		t.Fatal(err)
	}
	bridge, err := h.conn.Device("br0")
	if err != nil || !br.Created {
		t.Fatal(err)
	}
	var sysctls host.Sysctls
	for _, tt := range []struct {
		name string
		do   func() error
		want bool
	}{
		{"neighbour of a bridge", func() error {
			return changeNeighbour(h.conn, unix.RTM_NEWNEIGH, bridge.Index, Neighbour{netip.MustParseAddr("10.9.0.1"), MAC{2, 9}})
		}, false},
		{"neighbour", func() error { return changeNeighbour(h.conn, unix.RTM_DELNEIGH, d.Index, want.Neighbours[0]) }, true},
		{"forwarding entry", func() error { return changeFDB(h.conn, unix.RTM_DELNEIGH, d.Index, want.FDB[0]) }, true},
		{"route", func() error { return changeTunnelRoute(h.conn, unix.RTM_DELROUTE, 0, d.Index, want.Routes[0]) }, true},
		{"IPv6 route", func() error { return changeTunnelRoute(h.conn, unix.RTM_DELROUTE, 0, d.Index, want.Routes[1]) }, true},
		{"address", func() error { return h.conn.RemoveAddr(d.Index, want.Addrs[0]) }, true},
		{"a link forwards", func() error { return sysctls.Set("net/ipv4/conf/br0/forwarding", "1") }, false},
		{"a link forwards no more", func() error { return sysctls.Set("net/ipv4/conf/br0/forwarding", "0") }, true},
		{"IPv6 is forwarded", func() error { return sysctls.Set(host.ForwardV6, "1") }, false},
		{"IPv6 is forwarded no more", func() error { return sysctls.Set(host.ForwardV6, "0") }, true},
		{"down", func() error { return h.conn.SetLink(d.Index, 0, unix.IFF_UP) }, true},
		{"deleted", func() error { return h.conn.DeleteLink(d.Index) }, true},
	} {
		// A watcher that is there only for this change. The kernel tells of a new link late on a
		// busy machine, so a change that is not to be told of may be one that is once.
		got := false
		lntest.Await(lntest.WaitForAnswer, func() bool {
			got = tells(t, tt.do, tt.want)
			return got == tt.want
		})
		if got != tt.want {
			t.Errorf("%s: told of it %t, want %t", tt.name, got, tt.want)
		}
	}
}

// tells says whether a watcher tells of a change.
func tells(t *testing.T, do func() error, want bool) bool {
	t.Helper()
	w, err := Watch("vx-")
	if err != nil {
		t.Fatal(err)
	}
	patience := 2 * lntest.WaitForAnswer
	if !want {
		patience = 50 * time.Millisecond
	}
	return lntest.Tells(t, w, do, patience)
}
