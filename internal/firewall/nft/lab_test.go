package nft

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
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
	host         string // that of the test
	n            firewall.Network
	eA           firewall.Endpoint
}

const servicePort = 4711

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{t: t, a: lntest.NewNetns(t), b: lntest.NewNetns(t), c: lntest.NewNetns(t), out: lntest.NewNetns(t), f: start(t)}
	l.host = fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
	l.must(lntest.NoDAD())
	l.n = firewall.Network{Name: "net", Bridge: "br0"}
	l.eA = firewall.Endpoint{Owner: "net/a/eth0", Bridge: "br0", Port: "pa", Addrs: addrs("10.10.0.2", "fd10::2")}
	l.must(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}))
	l.must(lntest.Up("br0", "10.10.0.1/24", "fd10::1/64", "10.11.0.1/24", "fd11::1/64"))
	l.wire("pa", l.a, []string{"10.10.0.2/24", "fd10::2/64"}, "10.10.0.1", "fd10::1")
	l.wire("pb", l.b, []string{"10.10.0.3/24", "fd10::3/64"}, "10.10.0.1", "fd10::1")
	l.wire("pc", l.c, []string{"10.11.0.3/24", "fd11::3/64"}, "10.11.0.1", "fd11::1")
	l.wire("out", l.out, []string{"192.0.2.2/24", "fd20::2/64"}, "192.0.2.1", "fd20::1")
	for _, port := range []string{"pa", "pb", "pc"} {
		lntest.Plug(t, port, "br0")
	}
	l.must(lntest.Up("out", "192.0.2.1/24", "fd20::1/64"))
	l.must(lntest.Sysctl("ipv4/ip_forward", "1"))
	l.must(lntest.Sysctl("ipv6/conf/all/forwarding", "1"))
	l.must(lntest.Sysctl("ipv4/conf/all/send_redirects", "0")) // or a finds b without the host
	l.must(lntest.Sysctl("ipv4/conf/br0/send_redirects", "0"))
	for _, path := range []string{l.host, l.b, l.c, l.out} {
		lntest.Serve(t, path, servicePort)
	}
	return l
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// wire connects a namespace by an interface here.
func (l *lab) wire(name, path string, cidrs []string, gateways ...string) {
	l.t.Helper()
	lntest.Wire(l.t, name, path, func() error {
		return errors.Join(lntest.Sysctl("ipv6/conf/all/accept_redirects", "0"), lntest.Sysctl("ipv6/conf/eth0/accept_redirects", "0"),
			lntest.Up("eth0", cidrs...), lntest.Via(gateways...))
	})
}

// ask calls the server at to, an address or an address and a port, from the
// namespace, or from here if that is empty, and returns the source that it saw.
func (l *lab) ask(network, from, to string, patience time.Duration) (seen netip.Addr, err error) {
	l.t.Helper()
	addr, err := netip.ParseAddrPort(to)
	if err != nil {
		addr = netip.AddrPortFrom(netip.MustParseAddr(to), servicePort)
	}
	if from == "" {
		from = l.host
	}
	answer, err := lntest.Ask(l.t, from, network, addr.String(), patience)
	if err != nil {
		return netip.Addr{}, err
	}
	_, source, _ := strings.Cut(answer, " ")
	return netip.ParseAddr(source)
}

func (l *lab) wantSource(from, to, want string) {
	l.t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		got, err := l.ask(network, from, to, lntest.WaitForAnswer)
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
		got, err := l.ask(network, from, to, lntest.WaitForNone)
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
	var out net.Conn
	l.must(lntest.In(l.t, from, func() (err error) {
		out, err = net.Dial("udp", netip.AddrPortFrom(netip.MustParseAddr(to), servicePort+1).String())
		return err
	}))
	defer func() { _ = out.Close() }()
	text := "from " + out.LocalAddr().String() // no other call's
	heard, err := lntest.Heard(in, text, patience, func() error {
		_, _ = out.Write([]byte(text)) // of an earlier one, the kernel may tell that it was refused
		return nil
	})
	l.must(err)
	return heard
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
