package integration

import (
	"errors"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// worldMTU is the MTU of the host's way out, in bytes.
const worldMTU = 1400

// addrGenNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h: no link-local
// address appears some time later.
const addrGenNone = 1

// world gives the host a way out: the interface "uplink" and a default route
// to a machine behind it.
func (h *host) world() {
	h.t.Helper()
	ns := h.netns("world")
	h.check(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "uplink", MTU: worldMTU}, PeerName: "w0", PeerMTU: worldMTU}))
	h.moveIn("w0", ns)
	uplink, err := netlink.LinkByName("uplink")
	h.check(err)
	h.check(netlink.LinkSetIP6AddrGenMode(uplink, addrGenNone))
	h.setAddress("", "uplink", netip.PrefixFrom(hostAddr(false), 24).String())
	h.setAddress("", "uplink", netip.PrefixFrom(hostAddr(true), 64).String())
	h.setAddress(ns, "w0", netip.PrefixFrom(worldAddr(false), 24).String())
	h.setAddress(ns, "w0", netip.PrefixFrom(worldAddr(true), 64).String())
	h.route("", "0.0.0.0/0", worldAddr(false).String())
	h.route("", "::/0", worldAddr(true).String())
}

func hostAddr(is6 bool) netip.Addr { return pick(is6, "2001:db8::1", "192.0.2.1") }

func worldAddr(is6 bool) netip.Addr { return pick(is6, "2001:db8::2", "192.0.2.2") }

func pick(is6 bool, v6, v4 string) netip.Addr {
	if is6 {
		return netip.MustParseAddr(v6)
	}
	return netip.MustParseAddr(v4)
}

func (h *host) moveIn(name, ns string) {
	h.t.Helper()
	l, err := netlink.LinkByName(name)
	h.check(err)
	f, err := os.Open(ns)
	h.check(err)
	h.check(errors.Join(netlink.LinkSetNsFd(l, int(f.Fd())), f.Close()))
}

// in runs fn in a namespace; "" is the host.
func (h *host) in(ns string, fn func()) {
	h.t.Helper()
	if ns == "" {
		fn()
		return
	}
	lntest.Enter(h.t, ns, fn)
}

// setAddress gives an interface an address, at once usable, and sets it up.
func (h *host) setAddress(ns, name, prefix string) {
	h.t.Helper()
	h.in(ns, func() {
		l, err := netlink.LinkByName(name)
		h.check(err)
		a, err := netlink.ParseAddr(prefix)
		h.check(err)
		a.Flags = unix.IFA_F_NODAD
		h.check(netlink.AddrAdd(l, a))
		h.check(netlink.LinkSetUp(l))
	})
}

func (h *host) route(ns, dst, gw string) {
	h.t.Helper()
	h.in(ns, func() {
		to, err := netlink.ParseIPNet(dst)
		h.check(err)
		h.check(netlink.RouteReplace(&netlink.Route{Dst: to, Gw: netip.MustParseAddr(gw).AsSlice()}))
	})
}

func (h *host) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}
