package lntest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Up gives an interface addresses, those of IPv6 without duplicate address
// detection, and sets it up.
func Up(name string, cidrs ...string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, s := range cidrs {
		a, err := netlink.ParseAddr(s)
		if err != nil {
			return err
		}
		if a.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(link, a); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return netlink.LinkSetUp(link)
}

// NoDAD gives interfaces that are made from now on their link-local address
// at once. A host that forwards asks for a neighbour's MAC from that address
// only, so packets would be lost for the one or two seconds that DAD takes.
func NoDAD() error {
	return errors.Join(Sysctl("ipv6/conf/all/accept_dad", "0"), Sysctl("ipv6/conf/default/accept_dad", "0"))
}

// Sysctl writes one below net.
func Sysctl(name, value string) error {
	return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o644)
}

// Wire makes a veth from name here to eth0 in the namespace at path, and runs
// setUp there, under which interfaces have no DAD.
func Wire(t testing.TB, name, path string, setUp func() error) {
	t.Helper()
	ns, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ns.Close() }()
	err = netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns.Fd()),
	})
	if err == nil {
		err = In(t, path, func() error { return errors.Join(NoDAD(), setUp()) })
	}
	if err != nil {
		t.Fatalf("wire %s: %v", name, err)
	}
}

// Plug makes an interface a port of a bridge, and sets it up.
func Plug(t testing.TB, name, bridge string) {
	t.Helper()
	br, err := netlink.LinkByName(bridge)
	if err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = errors.Join(netlink.LinkSetMaster(link, br), netlink.LinkSetUp(link))
	}
	if err != nil {
		t.Fatalf("plug %s into %s: %v", name, bridge, err)
	}
}

// Via makes default routes.
func Via(gateways ...string) error {
	for _, g := range gateways {
		if err := netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(g)}); err != nil {
			return fmt.Errorf("route by %s: %w", g, err)
		}
	}
	return nil
}

// SourceOf sends one datagram from an address of here by an interface to what
// in listens to, and returns the source that in sees.
func SourceOf(t testing.TB, in *net.UDPConn, from, dev, to string) string {
	t.Helper()
	seen, err := sourceOf(in, from, dev, to)
	if err != nil {
		t.Fatalf("to %s: %v", to, err)
	}
	return seen
}

// SourceFrom is SourceOf for a sender in the namespace at path.
func SourceFrom(t testing.TB, path string, in *net.UDPConn, from, dev, to string) (seen string) {
	t.Helper()
	err := In(t, path, func() (err error) {
		seen, err = sourceOf(in, from, dev, to)
		return err
	})
	if err != nil {
		t.Fatalf("to %s: %v", to, err)
	}
	return seen
}

func sourceOf(in *net.UDPConn, from, dev, to string) (string, error) {
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}, Control: func(_, _ string, raw syscall.RawConn) error {
		var bindErr error
		err := raw.Control(func(fd uintptr) {
			bindErr = unix.BindToDevice(int(fd), dev)
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 8) // of the other family it is refused
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 8)
		})
		return errors.Join(err, bindErr)
	}}
	port := in.LocalAddr().(*net.UDPAddr).Port
	c, err := d.Dial("udp", netip.AddrPortFrom(netip.MustParseAddr(to), uint16(port)).String())
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	text := "from " + c.LocalAddr().String() // no other sender's
	seen, err := hear(in, text, WaitForAnswer, func() error { _, err := c.Write([]byte(text)); return err })
	if err != nil {
		return "", err
	}
	return seen.(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("").String(), nil
}

// ListenGroup listens on eth0 of the namespace at path to the group and to the
// namespace's own addresses.
func ListenGroup(t testing.TB, path, group string, port int) *net.UDPConn {
	t.Helper()
	var in *net.UDPConn
	err := In(t, path, func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		in, err = net.ListenMulticastUDP("udp", eth0, &net.UDPAddr{IP: net.ParseIP(group), Port: port})
		return err
	})
	if err != nil {
		t.Fatalf("listen to %s: %v", group, err)
	}
	t.Cleanup(func() { _ = in.Close() })
	return in
}
