package tunnel

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

func TestEchoAll(t *testing.T) {
	t.Parallel()
	h := newTunnels(t)
	lo, err := h.conn.Device("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.conn.SetLink(lo.Index, 0, 0, netlink.AttrUint32(unix.IFLA_MTU, 4000)); err != nil {
		t.Fatal(err)
	}
	all := []Echo{
		{netip.MustParseAddr("127.0.0.1"), MinEcho},
		{netip.MustParseAddr("::1"), MinEcho},
		{netip.MustParseAddr("127.0.0.1"), 3999}, // an odd number of bytes
		{netip.MustParseAddr("::1"), 4000},
		{netip.MustParseAddr("127.0.0.1"), 4001},
		{netip.MustParseAddr("::1"), 4001},
		{netip.MustParseAddr("192.0.2.1"), MinEcho},
	}
	got, err := EchoAll(t.Context(), "", all, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, true, true, true, false, false, false} {
		if g := got[i]; (g.RTT > 0) != want || (g.Err == nil) != want {
			t.Errorf("%v: %+v, want an answer: %t", all[i], g, want)
		}
	}
	many := slices.Repeat(all[:2], 1000)
	began := time.Now()
	if got, err = EchoAll(t.Context(), "lo", many, time.Minute); err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(got, func(e Echoed) bool { return e.RTT == 0 }); i >= 0 || time.Since(began) > 30*time.Second {
		t.Errorf("%d of %d has no answer, after %s", i, len(many), time.Since(began))
	}
}

// Each part of a tunnel is found to be there, another, or missing.
func TestFindTunnel(t *testing.T) {
	t.Parallel()
	h := newTunnels(t)
	want := testTunnel()
	states := func(of ...[]Entry) (all []EntryState) {
		for _, e := range slices.Concat(of...) {
			all = append(all, e.State)
		}
		return all
	}
	find := func(device int, want4 ...EntryState) Found {
		t.Helper()
		f, err := h.FindTunnel(t.Context(), want)
		if err != nil {
			t.Fatal(err)
		}
		got := states(f.Routes, f.Neighbours, f.FDB)
		if len(f.Device) != device || !slices.Equal(got, want4) {
			t.Errorf("device %v, %v: want %d, %v", f.Device, got, device, want4)
		}
		return f
	}
	want = testTunnel()
	find(1, EntryMissing, EntryMissing, EntryMissing, EntryMissing, EntryMissing)
	mustTunnel(t, h, want)
	find(0, EntryPresent, EntryPresent, EntryPresent, EntryPresent, EntryPresent)
	want.FDB[0].Remote = netip.MustParseAddr("192.0.2.9")
	want.Neighbours[1].MAC = MAC{2, 0, 0, 0, 0, 9}
	want.Routes = append(want.Routes[1:], Route{netip.MustParsePrefix("10.5.2.0/24"), netip.MustParseAddr("10.5.2.0")})
	want.MTU = 1400
	f := find(1, EntryPresent, EntryMissing, EntryPresent, EntryDiffering, EntryDiffering)
	if got := f.FDB[0].Instead + " " + f.Neighbours[1].Instead; got != "192.0.2.2 02:00:00:00:00:02" {
		t.Errorf("in their places: %s", got)
	}
}
