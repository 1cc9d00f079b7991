package kernel

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
)

const testOwner = "libnet:net1/c1/eth0"

// newHandle isolates the calling test and opens a handle there.
func newHandle(t testing.TB) *Handle {
	t.Helper()
	lntest.Isolate(t)
	h, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// newNetns opens a fresh namespace.
func newNetns(t testing.TB) *Netns {
	t.Helper()
	n, err := OpenNetns(lntest.NewNetns(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func prefixes(ss ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func mustBridge(t testing.TB, h *Handle, b Bridge) BridgeState {
	t.Helper()
	st, err := h.EnsureBridge(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func mustAttach(t testing.TB, h *Handle, l Link) Attached {
	t.Helper()
	a, err := h.Attach(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// testBridge and testLink are a dual-stack network and its first container.
func testBridge() Bridge {
	return Bridge{Name: "br0", Gateways: prefixes("10.1.0.1/24", "fd00:1::1/64"), Alias: "libnet:net1"}
}

func testLink(n *Netns) Link {
	return Link{
		Owner: testOwner, HostName: "vethc1", Bridge: "br0", Netns: n, IfName: "eth0",
		Addrs: prefixes("10.1.0.2/24", "fd00:1::2/64"),
		Routes: []Route{
			{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.1.0.1")},
			{Dst: netip.MustParsePrefix("::/0"), Gateway: netip.MustParseAddr("fd00:1::1")},
		},
	}
}

// linkNames lists the links of h's namespace; "nothing left" compares it.
func linkNames(t testing.TB, h *Handle) string {
	t.Helper()
	ds, err := h.conn.devices(0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range ds {
		names = append(names, d.name)
	}
	return strings.Join(names, " ")
}

// in runs fn in n and fails the test on an error.
func in(t testing.TB, n *Netns, fn func(c *conn) error) {
	t.Helper()
	if err := withConn(n, fn); err != nil {
		t.Fatal(err)
	}
}
