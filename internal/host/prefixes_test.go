package host

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

func TestPrefixes(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	link := &vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: "up0"}}
	down := &vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: "down0"}}
	err := errors.Join(lntest.AddLink(link, "172.17.0.1/16", "fd00:1::1/64"), vnl.LinkSetUp(link), lntest.AddLink(down, "172.18.0.1/16"))
	for _, r := range []vnl.Route{
		{Dst: lntest.CIDR("0.0.0.0/0")}, {Dst: lntest.CIDR("0.0.0.0/1")}, {Dst: lntest.CIDR("128.0.0.0/1")},
		{Dst: lntest.CIDR("10.0.0.0/8")}, {Dst: lntest.CIDR("10.9.0.0/16"), Table: 1000}, {Dst: lntest.CIDR("fd00:2::/48")}, {Dst: lntest.CIDR("2000::/3")},
		{Dst: lntest.CIDR("169.254.0.0/16")},
	} {
		r.LinkIndex = link.Attrs().Index
		err = errors.Join(err, vnl.RouteAdd(&r))
	}
	err = errors.Join(err, vnl.RouteAdd(&vnl.Route{Dst: lntest.CIDR("10.8.0.0/24"), Type: unix.RTN_BLACKHOLE}))
	if err != nil {
		t.Fatal(err)
	}
	want := lntest.Prefixes("10.0.0.0/8", "10.8.0.0/24", "10.9.0.0/16", "127.0.0.0/8", "127.0.0.1/32",
		"172.17.0.0/16", "172.17.0.1/32", "172.18.0.1/32", "::1/128", "fd00:1::/64", "fd00:1::1/128", "fd00:2::/48")
	var got []netip.Prefix
	lntest.Await(lntest.WaitForAnswer, func() bool { // the kernel adds the route to fd00:1::1 in its own time
		got, err = h.Prefixes()
		return err != nil || len(got) >= len(want)
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
