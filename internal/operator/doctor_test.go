package operator

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// Diagnose reports forwarding by interface, and router advertisements.
func TestDiagnoseForwarding(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	n := h.network("10.1.0.0/24", engine.WithSubnet(netip.MustParsePrefix("fd01::/64")))
	if _, err := h.web(n); err != nil {
		t.Fatal(err)
	}
	up := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "up0"}}
	err := errors.Join(netlink.LinkAdd(up), lntest.Up("up0", "192.0.2.1/24", "2001:db8::1/64"), lntest.Via("192.0.2.2"))
	if err != nil {
		t.Fatal(err)
	}
	found := func(about string) Finding {
		for _, f := range h.Diagnose(context.Background()) {
			if f.About == about {
				return f
			}
		}
		return Finding{}
	}
	if f := found("forwarding IPv4"); f.Advice != "" || f.Found != "on" {
		t.Errorf("all is on: %+v", f)
	}
	if f := found("IPv6 of the host"); f != (Finding{}) {
		t.Errorf("none came: %+v", f)
	}
	br := n.Config().Bridge
	err = errors.Join(lntest.Sysctl("ipv4/conf/up0/forwarding", "0"), lntest.Sysctl("ipv4/conf/"+br+"/forwarding", "0"),
		netlink.RouteAdd(&netlink.Route{Dst: ipnet("2001:db8:1::/64"), LinkIndex: up.Attrs().Index, Protocol: unix.RTPROT_RA}))
	if err != nil {
		t.Fatal(err)
	}
	if f := found("forwarding IPv4"); !strings.Contains(f.Found, "off for "+br+", up0") || !strings.Contains(f.Advice, "net/ipv4/conf/"+br+"/forwarding=1") {
		t.Errorf("got %+v", f)
	}
	if f := found("IPv6 of the host"); !strings.Contains(f.Found, "up0 takes no router advertisements") || !strings.Contains(f.Advice, "net/ipv6/conf/up0/accept_ra=2") {
		t.Errorf("got %+v", f)
	}
	if err := lntest.Sysctl("ipv6/conf/up0/accept_ra", "2"); err != nil {
		t.Fatal(err)
	}
	if f := found("IPv6 of the host"); f != (Finding{}) {
		t.Errorf("accept_ra is 2: %+v", f)
	}
}
