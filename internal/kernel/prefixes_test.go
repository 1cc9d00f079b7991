package kernel

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestPrefixes(t *testing.T) {
	t.Parallel()
	h := newHandle(t)
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "up0"}}
	down := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "down0"}}
	err := errors.Join(addLink(link, "172.17.0.1/16", "fd00:1::1/64"), netlink.LinkSetUp(link), addLink(down, "172.18.0.1/16"))
	for _, r := range []netlink.Route{
		{Dst: cidr("0.0.0.0/0")}, {Dst: cidr("0.0.0.0/1")}, {Dst: cidr("128.0.0.0/1")},
		{Dst: cidr("10.0.0.0/8")}, {Dst: cidr("10.9.0.0/16"), Table: 1000}, {Dst: cidr("fd00:2::/48")}, {Dst: cidr("2000::/3")},
		{Dst: cidr("169.254.0.0/16")},
	} {
		r.LinkIndex = link.Attrs().Index
		err = errors.Join(err, netlink.RouteAdd(&r))
	}
	err = errors.Join(err, netlink.RouteAdd(&netlink.Route{Dst: cidr("10.8.0.0/24"), Type: unix.RTN_BLACKHOLE}))
	if err != nil {
		t.Fatal(err)
	}
	want := prefixes("10.0.0.0/8", "10.8.0.0/24", "10.9.0.0/16", "127.0.0.0/8", "127.0.0.1/32",
		"172.17.0.0/16", "172.17.0.1/32", "172.18.0.1/32", "::1/128", "fd00:1::/64", "fd00:1::1/128", "fd00:2::/48")
	got, err := h.Prefixes()
	for range 100 { // the kernel adds the route to fd00:1::1 in its own time
		if err != nil || len(got) >= len(want) {
			break
		}
		time.Sleep(20 * time.Millisecond)
		got, err = h.Prefixes()
	}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func cidr(s string) *net.IPNet {
	_, n, _ := net.ParseCIDR(s)
	return n
}

func addLink(l netlink.Link, addrs ...string) error {
	err := netlink.LinkAdd(l)
	for _, a := range addrs {
		addr, parseErr := netlink.ParseAddr(a)
		if err == nil && parseErr == nil {
			addr.Flags = unix.IFA_F_NODAD
			err = netlink.AddrAdd(l, addr)
		}
	}
	return err
}
