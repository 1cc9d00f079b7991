package firewall

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// lab is a host with bridge br0, three containers on it, and an outside host.
// The test's own namespace is the host. Container c is of another subnet, so
// that a and c reach each other only by way of the host:
//
//	a 10.10.0.2, fd10::2 ─ pa ┐
//	b 10.10.0.3, fd10::3 ─ pb ─ br0 host out ─ 192.0.2.2, fd20::2
//	c 10.11.0.3, fd11::3 ─ pc ┘
//
// Outside has routes back to the containers, so that what is not masqueraded
// still gets its answer.
type lab struct {
	t            testing.TB
	f            *Firewall
	a, b, c, out string // paths of namespaces
	n            Network
	eA           Endpoint
}

const servicePort = 4711

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{t: t, a: lntest.NewNetns(t), b: lntest.NewNetns(t), c: lntest.NewNetns(t), out: lntest.NewNetns(t), f: start(t)}
	l.must(noDAD())
	l.n = Network{Name: "net", Bridge: "br0"}
	l.eA = Endpoint{Owner: "net/a/eth0", Bridge: "br0", Port: "pa", Addrs: addrs("10.10.0.2", "fd10::2")}
	l.must(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}))
	l.must(up("br0", "10.10.0.1/24", "fd10::1/64", "10.11.0.1/24", "fd11::1/64"))
	l.wire("pa", l.a, []string{"10.10.0.2/24", "fd10::2/64"}, "10.10.0.1", "fd10::1")
	l.wire("pb", l.b, []string{"10.10.0.3/24", "fd10::3/64"}, "10.10.0.1", "fd10::1")
	l.wire("pc", l.c, []string{"10.11.0.3/24", "fd11::3/64"}, "10.11.0.1", "fd11::1")
	l.wire("out", l.out, []string{"192.0.2.2/24", "fd20::2/64"}, "192.0.2.1", "fd20::1")
	br, err := netlink.LinkByName("br0")
	l.must(err)
	for _, port := range []string{"pa", "pb", "pc"} {
		link, err := netlink.LinkByName(port)
		l.must(err)
		l.must(netlink.LinkSetMaster(link, br))
		l.must(up(port))
	}
	l.must(up("out", "192.0.2.1/24", "fd20::1/64"))
	l.must(sysctl("ipv4/ip_forward", "1"))
	l.must(sysctl("ipv6/conf/all/forwarding", "1"))
	l.must(sysctl("ipv4/conf/all/send_redirects", "0")) // or a finds b without the host
	l.must(sysctl("ipv4/conf/br0/send_redirects", "0"))
	l.serve("")
	for _, path := range []string{l.b, l.c, l.out} {
		l.serve(path)
	}
	return l
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// wire makes a veth from name here to eth0 in the namespace, and sets that up.
func (l *lab) wire(name, path string, cidrs []string, gateways ...string) {
	l.t.Helper()
	ns, err := os.Open(path)
	l.must(err)
	defer func() { _ = ns.Close() }()
	l.must(netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns.Fd()),
	}))
	l.must(lntest.In(l.t, path, func() error {
		return errors.Join(noDAD(), sysctl("ipv6/conf/all/accept_redirects", "0"), sysctl("ipv6/conf/eth0/accept_redirects", "0"),
			up("eth0", cidrs...), via(gateways...))
	}))
}

func up(name string, cidrs ...string) error {
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

func via(gateways ...string) error {
	for _, g := range gateways {
		if err := netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(g)}); err != nil {
			return fmt.Errorf("route by %s: %w", g, err)
		}
	}
	return nil
}

// noDAD gives interfaces that are made from now on their link-local address
// at once. A host that forwards asks for a neighbour's MAC from that address
// only, so packets would be lost for the one or two seconds that DAD takes.
func noDAD() error {
	return errors.Join(sysctl("ipv6/conf/all/accept_dad", "0"), sysctl("ipv6/conf/default/accept_dad", "0"))
}

func sysctl(name, value string) error {
	return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o644)
}

// serve answers every datagram and every connection with the source address
// it came from, in the namespace, or here if path is empty.
func (l *lab) serve(path string) {
	l.t.Helper()
	var udp *net.UDPConn
	var tcp *net.TCPListener
	listen := func() (err error) {
		if udp, err = net.ListenUDP("udp", &net.UDPAddr{Port: servicePort}); err != nil {
			return err
		}
		tcp, err = net.ListenTCP("tcp", &net.TCPAddr{Port: servicePort})
		return err
	}
	if path == "" {
		l.must(listen())
	} else {
		l.must(lntest.In(l.t, path, listen))
	}
	l.t.Cleanup(func() { _, _ = udp.Close(), tcp.Close() })
	go func() {
		buf := make([]byte, 64)
		for {
			_, from, err := udp.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = udp.WriteToUDPAddrPort([]byte(from.Addr().Unmap().String()), from)
		}
	}()
	go func() {
		for {
			c, err := tcp.AcceptTCP()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().String()))
			_ = c.Close()
		}
	}()
}

// ask calls the server at to, an address or an address and a port, from the
// namespace, or from here if that is empty, and returns the source that it saw.
func (l *lab) ask(network, from, to string, patience time.Duration) (seen netip.Addr, err error) {
	addr, err := netip.ParseAddrPort(to)
	if err != nil {
		addr = netip.AddrPortFrom(netip.MustParseAddr(to), servicePort)
	}
	if from == "" {
		from = "/proc/thread-self/ns/net"
	}
	here, err := os.Open(from)
	l.must(err)
	defer func() { _ = here.Close() }()
	err = lntest.In(l.t, fmt.Sprintf("/proc/self/fd/%d", here.Fd()), func() error {
		d := net.Dialer{Timeout: patience}
		c, err := d.Dial(network, addr.String())
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		answer, err := lntest.Exchange(c, "?", patience)
		if err != nil {
			return err
		}
		seen, err = netip.ParseAddr(answer)
		return err
	})
	return seen, err
}

// Short enough for a test that waits for nothing, long enough on a slow machine.
const (
	waitForAnswer = 5 * time.Second
	waitForNone   = 300 * time.Millisecond
)

func (l *lab) wantSource(from, to, want string) {
	l.t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		got, err := l.ask(network, from, to, waitForAnswer)
		if err != nil {
			l.t.Errorf("%s to %s: %v", network, to, err)
		} else if got != netip.MustParseAddr(want) {
			l.t.Errorf("%s to %s: seen as %s, want %s", network, to, got, want)
		}
	}
}

func (l *lab) wantNothing(from, to string) {
	l.t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		got, err := l.ask(network, from, to, waitForNone)
		var timeout net.Error
		if !errors.Is(err, unix.ECONNREFUSED) && (!errors.As(err, &timeout) || !timeout.Timeout()) {
			l.t.Errorf("%s to %s: seen as %v, error %v, want a timeout", network, to, got, err)
		}
	}
}

// heard sends a datagram from one namespace to an address of another, and
// returns whether it arrives: an answer could be lost on its own way.
func (l *lab) heard(from, at, to string, patience time.Duration) bool {
	l.t.Helper()
	var in *net.UDPConn
	l.must(lntest.In(l.t, at, func() (err error) {
		in, err = net.ListenUDP("udp", &net.UDPAddr{Port: servicePort + 1})
		return err
	}))
	defer func() { _ = in.Close() }()
	l.must(lntest.In(l.t, from, func() error {
		c, err := net.Dial("udp", netip.AddrPortFrom(netip.MustParseAddr(to), servicePort+1).String())
		if err != nil {
			return err
		}
		_, err = c.Write([]byte("!"))
		return errors.Join(err, c.Close())
	}))
	l.must(in.SetDeadline(time.Now().Add(patience)))
	_, _, err := in.ReadFromUDPAddrPort(make([]byte, 8))
	return err == nil
}

// sourceOf sends one datagram out of here and returns the source in sees.
func (l *lab) sourceOf(in *net.UDPConn, from *net.UDPAddr, to string) string {
	l.t.Helper()
	d := net.Dialer{LocalAddr: from, Control: func(_, _ string, raw syscall.RawConn) error {
		var bindErr error
		err := raw.Control(func(fd uintptr) { bindErr = unix.BindToDevice(int(fd), "out") })
		return errors.Join(err, bindErr)
	}}
	c, err := d.Dial("udp", netip.AddrPortFrom(netip.MustParseAddr(to), servicePort+1).String())
	l.must(err)
	_, err = c.Write([]byte("!"))
	l.must(errors.Join(err, c.Close(), in.SetDeadline(time.Now().Add(waitForAnswer))))
	_, seen, err := in.ReadFromUDPAddrPort(make([]byte, 8))
	if err != nil {
		l.t.Fatalf("to %s: %v", to, err)
	}
	return seen.Addr().Unmap().WithZone("").String()
}

// listenGroup listens outside to the group and to outside's own addresses.
func (l *lab) listenGroup(group string) *net.UDPConn {
	l.t.Helper()
	var in *net.UDPConn
	l.must(lntest.In(l.t, l.out, func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		network := "udp4"
		if netip.MustParseAddr(group).Is6() {
			network = "udp6"
		}
		in, err = net.ListenUDP(network, &net.UDPAddr{Port: servicePort + 1})
		if err != nil {
			return err
		}
		raw, err := in.SyscallConn()
		if err != nil {
			return err
		}
		var joinErr error
		err = raw.Control(func(fd uintptr) { joinErr = joinGroup(int(fd), netip.MustParseAddr(group), eth0.Index) })
		return errors.Join(err, joinErr)
	}))
	l.t.Cleanup(func() { _ = in.Close() })
	return in
}

func joinGroup(fd int, group netip.Addr, ifindex int) error {
	if group.Is4() {
		return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP,
			&unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(ifindex)})
	}
	return unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP,
		&unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(ifindex)})
}

func viaNet(dst, gateway string) error {
	_, to, err := net.ParseCIDR(dst)
	if err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{Dst: to, Gw: net.ParseIP(gateway)})
}

// markFrom has packets that enter by an interface carry a mark.
func (l *lab) markFrom(dev string, mark uint32) {
	l.t.Helper()
	script := fmt.Sprintf(`table inet theirs { chain c { type filter hook prerouting priority mangle; iifname %q meta mark set %d; }; }`, dev, mark)
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("nft: %v: %s", err, out)
	}
}
