package link

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

func TestDetach(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	n := newNetns(t)
	mustBridge(t, h, testBridge())
	alias := func(s string) func(Attached) error {
		return func(a Attached) error {
			return h.conn.SetLink(a.HostIndex, 0, 0, netlink.Attr(unix.IFLA_IFALIAS, []byte(s)))
		}
	}
	rename := func(a Attached) error {
		return h.conn.SetLink(a.HostIndex, 0, 0, netlink.AttrString(unix.IFLA_IFNAME, "renamed"))
	}
	byName := Ref{Owner: testOwner, HostName: "vethc1"}
	byPeer := Ref{Owner: testOwner, HostName: "gone", NetnsPath: n.Path(), IfName: "eth0"}
	for _, tt := range []struct {
		name   string
		before func(Attached) error
		ref    Ref
		gone   bool
	}{
		{"by name", nil, byName, true},
		{"no alias yet", alias("\x00"), byName, true},
		{"another owner", alias("other"), byName, false},
		{"renamed, by alias", rename, byName, true},
		{"by peer", nil, byPeer, true},
		{"by peer, no alias", alias("\x00"), byPeer, true},
		{"by peer, another owner", alias("other"), byPeer, false},
		{"missing", nil, Ref{Owner: "x", HostName: "y", NetnsPath: "/proc/nonexistent", IfName: "eth0"}, false},
		{"path is no namespace", nil, Ref{Owner: "x", HostName: "y", NetnsPath: "/proc/self/exe", IfName: "eth0"}, false},
		{"lo", nil, Ref{Owner: "x", HostName: "lo", NetnsPath: n.Path(), IfName: "lo"}, false},
		{"a bridge", nil, Ref{Owner: "libnet:net1", HostName: "br0"}, false},
	} {
		a := mustAttach(t, h, testLink(n))
		if tt.before != nil {
			if err := tt.before(a); err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
		}
		for range 2 {
			if err := h.Detach(t.Context(), tt.ref); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		_, err := h.conn.DeviceByIndex(a.HostIndex)
		if gone := err != nil; gone != tt.gone {
			t.Errorf("%s: gone is %t, want %t", tt.name, gone, tt.gone)
		}
		if err == nil {
			if err := h.conn.DeleteLink(a.HostIndex); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	n := newNetns(t)
	st := mustBridge(t, h, testBridge())
	mustBridge(t, h, Bridge{Name: "br1"})
	mustBridge(t, h, Bridge{Name: "br2", Alias: "other"})
	l := testLink(n)
	a := mustAttach(t, h, l)
	got, err := h.List(t.Context(), "libnet:")
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b Owned) int { return a.Index - b.Index })
	want := []Owned{
		{Owner: "libnet:net1", Name: "br0", Index: st.Index, Bridge: true},
		{Owner: testOwner, Name: "vethc1", Index: a.HostIndex, Master: "br0"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A link that was set down to be removed is no good to another call, even if it is up
// again: the one that has set it down may still remove it.
func TestSetDownIsFinal(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	mustBridge(t, h, testBridge())
	l := testLink(newNetns(t))
	a := mustAttach(t, h, l)
	err := h.SetDown(t.Context(), Ref{Owner: l.Owner, HostName: l.HostName})
	if err == nil {
		err = h.conn.SetLink(a.HostIndex, unix.IFF_UP, unix.IFF_UP)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Verify(t.Context(), l); !errors.Is(err, netlink.ErrDifferent) || !strings.Contains(err.Error(), "being removed") {
		t.Errorf("Verify says %v", err)
	}
}
