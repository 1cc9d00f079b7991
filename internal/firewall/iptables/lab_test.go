package iptables

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// lab is a host with two bridges, three containers, and an outside host that
// has routes to the containers. The test's own namespace is the host.
//
//	a 10.10.0.2, fd10::2 ─┐
//	b 10.10.0.3, fd10::3 ─┴ br0 ┐
//	c 10.11.0.2, fd11::2 ── br1 ┴ host ─ out 192.0.2.2, fd20::2
type lab struct {
	t                  testing.TB
	f                  *Firewall
	host, a, b, c, out string // paths of namespaces
	n                  firewall.Network
	e                  firewall.Endpoint // a
}

// Containers listen on these, by TCP and UDP: the one that tests publish, one
// that they do not, and a range. The host has services at the last only.
const (
	servicePort = 4711
	otherPort   = 4712
	rangePort   = 7000
	hostOnly    = 4713
)

func isolate(t testing.TB) *Firewall {
	t.Helper()
	for _, tool := range []string{"iptables-restore", "ip6tables-restore"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	lntest.Isolate(t)
	return New(filepath.Join(t.TempDir(), "lock"))
}

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{t: t, f: isolate(t), a: lntest.NewNetns(t), b: lntest.NewNetns(t), c: lntest.NewNetns(t), out: lntest.NewNetns(t)}
	l.host = fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
	l.n = firewall.Network{Name: "net", Bridge: "br0"}
	l.e = firewall.Endpoint{Owner: "net/a/eth0", Bridge: "br0", Port: "pa", Addrs: addrs("10.10.0.2", "fd10::2")}
	l.must(lntest.NoDAD())
	for _, br := range []string{"br0", "br1"} {
		l.must(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: br}}))
	}
	l.must(lntest.Up("br0", "10.10.0.1/24", "fd10::1/64"))
	l.must(lntest.Up("br1", "10.11.0.1/24", "fd11::1/64"))
	l.wire("pa", "br0", l.a, "10.10.0.2/24", "fd10::2/64")
	l.wire("pb", "br0", l.b, "10.10.0.3/24", "fd10::3/64")
	l.wire("pc", "br1", l.c, "10.11.0.2/24", "fd11::2/64")
	l.wire("out", "", l.out, "192.0.2.2/24", "fd20::2/64", "fe80::2/64")
	l.must(lntest.Up("out", "192.0.2.1/24", "192.0.2.9/24", "fd20::1/64", "fe80::1/64"))
	l.must(lntest.Sysctl("ipv4/ip_forward", "1"))
	l.must(lntest.Sysctl("ipv6/conf/all/forwarding", "1"))
	for _, dev := range []string{"br0", "br1", "out"} { // as for published ports, and worse
		l.must(lntest.Sysctl("ipv4/conf/"+dev+"/route_localnet", "1"))
	}
	if err := bridgeNetfilter("0"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, path := range []string{l.a, l.b, l.c, l.out} {
		for _, port := range []int{servicePort, otherPort, rangePort, rangePort + 1, rangePort + 2} {
			lntest.Serve(l.t, path, port)
		}
	}
	lntest.Serve(l.t, l.host, hostOnly)
	return l
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// wire connects a namespace by an interface here. Its gateways are the first
// addresses of the same subnets.
func (l *lab) wire(name, bridge, path string, cidrs ...string) {
	l.t.Helper()
	lntest.Wire(l.t, name, path, func() error {
		err := lntest.Up("eth0", cidrs...)
		for _, s := range cidrs[:2] {
			err = errors.Join(err, lntest.Via(netip.MustParsePrefix(s).Masked().Addr().Next().String()))
		}
		return err
	})
	if bridge != "" {
		lntest.Plug(l.t, name, bridge)
	}
}

// bridgeNetfilter sets whether frames that are bridged see the rules.
func bridgeNetfilter(value string) error {
	return errors.Join(lntest.Sysctl("bridge/bridge-nf-call-iptables", value), lntest.Sysctl("bridge/bridge-nf-call-ip6tables", value))
}

func addrs(all ...string) []netip.Addr {
	var parsed []netip.Addr
	for _, s := range all {
		parsed = append(parsed, netip.MustParseAddr(s))
	}
	return parsed
}

func (l *lab) apply(n firewall.Network, e firewall.Endpoint) {
	l.t.Helper()
	mustApply(l.t, l.f, n, e)
}

func mustApply(t testing.TB, f *Firewall, n firewall.Network, e firewall.Endpoint) {
	t.Helper()
	if _, err := f.Apply(t.Context(), n, e); err != nil {
		t.Fatal(err)
	}
	if err := f.Verify(t.Context(), n, e); err != nil {
		t.Errorf("differs after apply: %v", err)
	}
}

func mustRemove(t testing.TB, f *Firewall, n firewall.Network, es ...firewall.Endpoint) {
	t.Helper()
	for _, e := range es {
		if err := f.Remove(t.Context(), firewall.Endpoint{Owner: e.Owner}); err != nil {
			t.Fatal(err)
		}
	}
	if n.Name != "" {
		if err := f.RemoveNetwork(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
}

// runTool runs a command on the test's thread, so in its namespace.
func runTool(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v: %s", args, err, out)
	}
	return string(out)
}

var (
	counters   = regexp.MustCompile(`\[\d+:\d+\]`)
	emptyTable = regexp.MustCompile(`(?m)^\*\w+\n(:\w+ ACCEPT \n)+COMMIT\n`)
)

// ruleset is what both tools print, without counters and dates, and without
// tables that have built-in chains only: a tool makes these when it looks.
func ruleset(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	for _, name := range []string{"iptables-save", "ip6tables-save"} {
		fmt.Fprintln(&b, name)
		var text strings.Builder
		for line := range strings.Lines(runTool(t, name)) {
			if !strings.HasPrefix(line, "#") {
				text.WriteString(counters.ReplaceAllString(line, ""))
			}
		}
		b.WriteString(emptyTable.ReplaceAllString(text.String(), ""))
	}
	return b.String()
}

// port publishes one port of the host, servicePort of the container.
func port(proto firewall.Protocol, hostIP string, hostPort uint16) firewall.PortMap {
	p := firewall.PortMap{Protocol: proto, HostPort: hostPort, ContainerPort: servicePort}
	if hostIP != "" {
		p.HostIP = netip.MustParseAddr(hostIP)
	}
	return p
}

// tcpAndUDP publishes a port by both.
func tcpAndUDP(hostIP string, hostPort uint16) []firewall.PortMap {
	return []firewall.PortMap{port(firewall.TCP, hostIP, hostPort), port(firewall.UDP, hostIP, hostPort)}
}
