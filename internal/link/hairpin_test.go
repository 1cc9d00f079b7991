package link

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// SetHairpin finds the bridge port by the container's interface, and leaves alone
// what is none.
func TestSetHairpin(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	l := testLink(newNetns(t))
	mustBridge(t, h, testBridge())
	mustAttach(t, h, l)
	hairpin := func() bool {
		t.Helper()
		d, err := h.conn.Device(l.HostName)
		if err != nil {
			t.Fatal(err)
		}
		return d.Hairpin
	}
	want := l
	want.Hairpin = true
	if err := h.Verify(t.Context(), want); err == nil || !strings.Contains(err.Error(), "hairpin is false, want true") {
		t.Errorf("verify before: %v", err)
	}
	for _, at := range [][2]string{{"/proc/nonexistent", "eth0"}, {l.Netns.Path(), "lo"}, {l.Netns.Path(), "none"}} {
		if err := h.SetHairpin(at[0], at[1]); err != nil || hairpin() {
			t.Errorf("%v: %v, hairpin %v", at, err, hairpin())
		}
	}
	br, err := h.conn.Device(l.Bridge)
	if err != nil {
		t.Fatal(err)
	}
	promisc := func(flags uint32) {
		t.Helper()
		if err := h.conn.SetLink(br.Index, flags, unix.IFF_PROMISC); err != nil {
			t.Fatal(err)
		}
	}
	promisc(unix.IFF_PROMISC)
	if err := h.SetHairpin(l.Netns.Path(), l.IfName); err != nil || hairpin() {
		t.Errorf("of a promiscuous bridge: %v, hairpin %v", err, hairpin())
	}
	promisc(0)
	for range 2 {
		if err := h.SetHairpin(l.Netns.Path(), l.IfName); err != nil || !hairpin() {
			t.Errorf("%v, hairpin %v", err, hairpin())
		}
	}
	for _, link := range []Link{l, want} {
		if err := h.Verify(t.Context(), link); err != nil {
			t.Errorf("verify after, hairpin wanted %v: %v", link.Hairpin, err)
		}
	}
}
