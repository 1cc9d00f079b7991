package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// TestForwardKeepsIPv6 has a host that gets its IPv6 from router advertisements:
// address, default route and the next advertisement must still be taken when it
// forwards.
func TestForwardKeepsIPv6(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if err := lntest.NoDAD(); err != nil {
		t.Fatal(err)
	}
	router := lntest.NewNetns(t)
	lntest.Wire(t, "up0", router, func() error {
		return errors.Join(lntest.Sysctl("ipv6/conf/all/forwarding", "1"), lntest.Up("eth0"))
	})
	other := &vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: "quiet0"}} // accept_ra 1, and no advertisement
	own := &vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: "networkd0"}}
	err := errors.Join(lntest.Up("up0"), lntest.AddLink(other), lntest.AddLink(own),
		SetSysctl(IPv6Conf("networkd0", "accept_ra"), "0"), lntest.Up("quiet0"), lntest.Up("networkd0", "2001:db8:5::5/64"),
		vnl.RouteAdd(&vnl.Route{Dst: lntest.CIDR("2001:db8:6::/64"), Gw: net.ParseIP("2001:db8:5::1"), Protocol: unix.RTPROT_RA}))
	if err != nil {
		t.Fatal(err)
	}
	advertised := func(prefix string) {
		t.Helper()
		for end := time.Now().Add(lntest.WaitForAnswer); ; {
			if err := lntest.In(t, router, func() error { return advertise(netip.MustParsePrefix(prefix)) }); err != nil {
				t.Fatal(err)
			}
			all, err := vnl.AddrList(lntest.Must(vnl.LinkByName("up0")), vnl.FAMILY_V6)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range all {
				if netip.MustParsePrefix(prefix).Contains(netip.MustParseAddr(a.IP.String())) {
					return
				}
			}
			if time.Now().After(end) {
				t.Fatalf("no address of %s: the advertisement is not taken", prefix)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	hasDefault := func() bool {
		rs, err := h.conn.Routes(unix.AF_INET6, 0, unix.RT_TABLE_MAIN)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rs {
			if r.Dst.Bits() == 0 && r.Protocol == unix.RTPROT_RA {
				return true
			}
		}
		return false
	}
	advertised("2001:db8:1::/64")
	if !hasDefault() {
		t.Fatal("no default route by an advertisement")
	}
	if err := h.Forward(t.Context(), false, true); err != nil {
		t.Fatal(err)
	}
	if !hasDefault() {
		t.Error("the default route is gone")
	}
	advertised("2001:db8:2::/64")
	for name, want := range map[string]string{"up0": "2", "quiet0": "1", "networkd0": "0", "default": "1"} {
		if got, err := GetSysctl(IPv6Conf(name, "accept_ra")); got != want || err != nil {
			t.Errorf("accept_ra of %s is %q (%v), want %s", name, got, err, want)
		}
	}
	if lost, err := h.LostAdvertisements(t.Context()); len(lost) != 0 || err != nil {
		t.Errorf("lost: %v (%v)", lost, err)
	}

	// Forwarding that something else switched on is its affair, and told.
	if err := errors.Join(SetSysctl(IPv6Conf("up0", "accept_ra"), "1"), h.Forward(t.Context(), false, true)); err != nil {
		t.Fatal(err)
	}
	if got, _ := GetSysctl(IPv6Conf("up0", "accept_ra")); got != "1" {
		t.Errorf("accept_ra is %s though another one switched forwarding on", got)
	}
	if lost, err := h.LostAdvertisements(t.Context()); fmt.Sprint(lost) != "[up0]" || err != nil {
		t.Errorf("lost: got %v (%v), want up0", lost, err)
	}
}

// advertise sends a router advertisement with a prefix to all nodes by eth0.
func advertise(prefix netip.Prefix) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	eth0, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	ra := []byte{134, 0, 0, 0, 64, 0} // RFC 4861, section 4.2: the kernel fills in the checksum
	ra = binary.BigEndian.AppendUint16(ra, 1800)
	ra = append(ra, make([]byte, 8)...)
	ra = append(ra, 3, 4, byte(prefix.Bits()), 0xc0) // prefix information: on-link, for addresses
	ra = binary.BigEndian.AppendUint32(ra, 3600)
	ra = binary.BigEndian.AppendUint32(ra, 1800)
	ra = append(append(ra, 0, 0, 0, 0), prefix.Addr().AsSlice()...)
	err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255)
	if err == nil {
		err = unix.Sendto(fd, ra, 0, &unix.SockaddrInet6{Addr: netip.MustParseAddr("ff02::1").As16(), ZoneId: uint32(eth0.Index)})
	}
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENETUNREACH) {
		return nil // the link, or its link-local address, does not work yet: the caller tries again
	}
	return err
}
