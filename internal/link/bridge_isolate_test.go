package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/netns"
)

// TestIsolatedBridge sends what a container could send to its host, by each
// address, with each source, and what the host could send to the container. On
// a bridge without an address that is not isolated it all arrives.
func TestIsolatedBridge(t *testing.T) {
	t.Parallel()
	for _, isolated := range []bool{false, true} {
		h := newLinks(t)
		uplink(t, "192.0.2.1/24", "2001:db8::1/64")
		b := Bridge{Name: "iso", Alias: "libnet:net1/", Isolated: isolated}
		st := mustBridge(t, h, b)
		if err := h.VerifyBridge(t.Context(), b); err != nil {
			t.Error(err)
		}
		n := newNetns(t)
		l := testLink(n)
		l.Bridge, l.Routes = "iso", nil
		l.Addrs = lntest.Prefixes("10.46.0.2/24", "fd46::2/64")
		mustAttach(t, h, l)
		in, err := net.ListenUDP("udp", &net.UDPAddr{Port: 5000})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = in.Close() })
		if err := n.Do(func() error { return knowHost(st.MAC) }); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct{ from, to string }{
			{"10.46.0.2", "192.0.2.1"}, {"192.0.2.77", "192.0.2.1"}, {"192.0.2.1", "192.0.2.1"}, {"10.46.0.2", "255.255.255.255"},
			{"10.46.0.2", "224.0.0.1"}, {"fd46::2", "2001:db8::1"}, {"2001:db8::2", "2001:db8::1"}, {"fd46::2", "ff02::1"},
		} {
			// With its own address as source, nothing arrives anywhere.
			patience, arrives := lntest.WaitForNone, !isolated && tt.from != tt.to && tt.to != "224.0.0.1"
			if arrives {
				patience = lntest.WaitForAnswer
			}
			text := tt.from + " to " + tt.to
			got, err := lntest.Heard(in, text, patience, func() error {
				return n.Do(func() error { _ = sendFrom(tt.from, tt.to, text); return nil })
			})
			if err != nil {
				t.Fatal(err)
			}
			if got && isolated {
				t.Errorf("%s: the host got it", text)
			}
			if !got && arrives {
				t.Errorf("%s: the test sends what never arrives", text)
			}
		}
		patience := lntest.WaitForAnswer
		if isolated {
			patience = lntest.WaitForNone
		}
		if err := n.Do(func() error { return askByARP(patience) }); (err == nil) == isolated {
			t.Errorf("isolated %t: TCP to an address found by ARP: %v", isolated, err)
		}
		if err := toLinkLocal(n, patience); (err == nil) == isolated {
			t.Errorf("isolated %t: the host to the container's link-local address: %v", isolated, err)
		}
	}
}

// knowHost gives eth0 the routes, neighbours and sources of a container that
// wants to reach its host.
func knowHost(mac net.HardwareAddr) error {
	eth0, err := vnl.LinkByName("eth0")
	if err != nil {
		return err
	}
	at := eth0.Attrs().Index
	var errs []error
	for _, s := range []string{"192.0.2.77/32", "192.0.2.1/32", "2001:db8::2/128"} {
		errs = append(errs, lntest.Up("eth0", s))
	}
	// Its own, so that it can be a source, and not local, so that it can be asked.
	errs = append(errs, vnl.AddrDel(eth0, lntest.Must(vnl.ParseAddr("192.0.2.1/32"))))
	for _, s := range []string{"192.0.2.1/32", "192.0.2.9/32", "2001:db8::1/128"} {
		_, dst, err := net.ParseCIDR(s)
		errs = append(errs, err, vnl.RouteAdd(&vnl.Route{Dst: dst, LinkIndex: at, Scope: unix.RT_SCOPE_LINK}))
	}
	for _, s := range []string{"192.0.2.1", "2001:db8::1"} {
		errs = append(errs, vnl.NeighSet(&vnl.Neigh{LinkIndex: at, IP: net.ParseIP(s), HardwareAddr: mac, State: unix.NUD_PERMANENT}))
	}
	return errors.Join(errs...)
}

// sendFrom sends a datagram to port 5000 from any address.
func sendFrom(from, to, text string) error {
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
	fd, err := unix.Socket(netlink.Family(src), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	eth0, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1), unix.BindToDevice(fd, "eth0"))
	if src.Is4() {
		return errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1), unix.Bind(fd, &unix.SockaddrInet4{Addr: src.As4()}),
			unix.Sendto(fd, []byte(text), 0, &unix.SockaddrInet4{Addr: dst.As4(), Port: 5000}))
	}
	return errors.Join(err, unix.Bind(fd, &unix.SockaddrInet6{Addr: src.As16()}),
		unix.Sendto(fd, []byte(text), 0, &unix.SockaddrInet6{Addr: dst.As16(), Port: 5000, ZoneId: uint32(eth0.Index)}))
}

// askByARP sends ARP requests for the host's address on up0, and waits until the
// kernel has an answer, or has given up once after patience.
func askByARP(patience time.Duration) error {
	eth0, err := vnl.LinkByName("eth0")
	if err != nil {
		return err
	}
	ip := net.ParseIP("192.0.2.1")
	if err := vnl.NeighDel(&vnl.Neigh{LinkIndex: eth0.Attrs().Index, IP: ip}); err != nil {
		return err
	}
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		all, err := vnl.NeighList(eth0.Attrs().Index, unix.AF_INET)
		if err != nil {
			return err
		}
		for _, n := range all {
			if n.IP.Equal(ip) && n.State&(unix.NUD_REACHABLE|unix.NUD_STALE|unix.NUD_DELAY|unix.NUD_PROBE) != 0 {
				return nil
			}
			if n.IP.Equal(ip) && n.State&unix.NUD_FAILED != 0 && !time.Now().Before(end) {
				return errors.New("no answer")
			}
		}
		_ = sendFrom("10.46.0.2", "192.0.2.1", "?") // asks again where the kernel has given up
	}
}

// toLinkLocal connects from the host to the container's link-local address.
func toLinkLocal(n *netns.Namespace, patience time.Duration) error {
	var to string
	err := netlink.In(n, func(c *netlink.Conn) error {
		d, err := c.Device("eth0")
		if err != nil {
			return err
		}
		as, err := c.Addrs(d.Index, unix.AF_INET6)
		for _, a := range as {
			if a.Prefix.Addr().IsLinkLocalUnicast() {
				to = a.Prefix.Addr().String()
			}
		}
		return err
	})
	if err != nil || to == "" {
		return fmt.Errorf("no link-local address: %w", err)
	}
	var l net.Listener
	if err := n.Do(func() (err error) { l, err = net.Listen("tcp", ":81"); return err }); err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	c, err := lntest.Dial("tcp", "["+to+"%iso]:81", patience)
	if err == nil {
		err = c.Close()
	}
	return err
}

// An isolated network does not take a bridge on which the host or another
// network is, nor may a network with a gateway join its containers.
func TestIsolatedBridgeOfOthers(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	mustBridge(t, h, Bridge{Name: "lan0"})
	if err := lntest.Up("lan0", "172.16.9.5/24"); err != nil {
		t.Fatal(err)
	}
	iso := Bridge{Name: "lan0", Alias: "libnet:net1/", Isolated: true}
	if _, err := h.EnsureBridge(t.Context(), iso); !errors.Is(err, ErrAddressConflict) || !strings.Contains(err.Error(), "lan0 has 172.16.9.5/24") {
		t.Errorf("the host's bridge: got %v", err)
	}
	nat := testBridge()
	mustBridge(t, h, nat)
	iso.Name, iso.Needed = "br0", func([]netip.Prefix) ([]netip.Prefix, error) { return nat.Gateways, nil }
	if _, err := h.EnsureBridge(t.Context(), iso); !errors.Is(err, ErrAddressConflict) {
		t.Errorf("another network's bridge: got %v", err)
	}
	if err := h.VerifyBridge(t.Context(), nat); err != nil {
		t.Errorf("the refused network changed the bridge: %v", err)
	}
	iso.Needed = nil // it is gone
	mustBridge(t, h, iso)
	if err := h.VerifyBridge(t.Context(), iso); err != nil {
		t.Error(err)
	}
	mustBridge(t, h, nat) // and back, while there is no container
	if err := h.VerifyBridge(t.Context(), nat); err != nil {
		t.Error(err)
	}
	mustBridge(t, h, iso)
	l := testLink(newNetns(t))
	l.Routes = nil
	mustAttach(t, h, l)
	if _, err := h.EnsureBridge(t.Context(), nat); !errors.Is(err, ErrAddressConflict) || !strings.Contains(err.Error(), "isolated") {
		t.Errorf("a gateway beside an isolated container: got %v", err)
	}
	if err := h.VerifyBridge(t.Context(), iso); err != nil {
		t.Error(err)
	}
}
