package link

import (
	"net/netip"
	"testing"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/netns"
	"github.com/libnet-cni/libnet/internal/procfs"
)

const testOwner = "libnet:net1/c1/eth0"

// newLinks isolates the calling test and opens rtnetlink there.
func newLinks(t testing.TB) *Links {
	t.Helper()
	lntest.Isolate(t)
	h, err := openLinks()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.conn.Close)
	return h
}

func openLinks() (*Links, error) {
	c, err := netlink.Open()
	if err != nil {
		return nil, err
	}
	proc := procfs.New() // its descriptor ends with the test's process
	return New(c, host.New(c, proc), proc), nil
}

// newNetns opens a fresh namespace.
func newNetns(t testing.TB) *netns.Namespace {
	t.Helper()
	n, err := netns.Open(lntest.NewNetns(t))
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

func mustBridge(t testing.TB, h *Links, b Bridge) BridgeState {
	t.Helper()
	st, err := h.EnsureBridge(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func mustAttach(t testing.TB, h *Links, l Link) Attached {
	t.Helper()
	a, err := h.Attach(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// testBridge and testLink are a dual-stack network and its first container.
func testBridge() Bridge {
	return Bridge{Name: "br0", Gateways: lntest.Prefixes("10.1.0.1/24", "fd00:1::1/64"), Alias: "libnet:net1"}
}

func testLink(n *netns.Namespace) Link {
	return Link{
		Owner: testOwner, HostName: "vethc1", Bridge: "br0", Netns: n, IfName: "eth0",
		Addrs: lntest.Prefixes("10.1.0.2/24", "fd00:1::2/64"),
		Routes: []Route{
			{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.1.0.1")},
			{Dst: netip.MustParsePrefix("::/0"), Gateway: netip.MustParseAddr("fd00:1::1")},
		},
	}
}

// in runs fn in n and fails the test on an error.
func in(t testing.TB, n *netns.Namespace, fn func(c *netlink.Conn) error) {
	t.Helper()
	if err := netlink.In(n, fn); err != nil {
		t.Fatal(err)
	}
}
