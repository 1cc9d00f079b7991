package integration

import (
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// TestScripts runs testdata/script: cnitool and plugins, one command a line.
// Beside the usual commands of testscript there are:
//
//	netns NAME            make the network namespace $NS/NAME
//	rmnetns NAME          remove it
//	world                 give the host a way out, and "world" behind it
//	ping FROM ADDR        ADDR answers an echo from namespace FROM; "host" is ours
//	noping FROM ADDR      it does not
//	serve NS PORT         answer on a TCP port in a namespace, with its name
//	dial FROM ADDR NAME   connect to ADDR ("10.1.0.2:80"); the server NAME answers
//	[!] addr NS IF ADDR   an interface has an address
//	[!] route NS DST GW   there is a route
//	[!] link NS IF        there is an interface
//	links NAME            keep a snapshot of the host
//	same NAME [PATTERN]   the host is as in the snapshot, but for matching lines
//	nodir-leases NET      the network has no lease
//	attached NET N        the network has N leases, each once
func TestScripts(t *testing.T) {
	bin, tools := dirs(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			h := newHost(env.T().(testing.TB))
			env.Values["host"] = &script{host: h, kept: map[string]snapshot{}}
			examples, err := filepath.Abs(examples)
			env.Setenv("EXAMPLES", examples)
			env.Setenv("NETCONFPATH", env.WorkDir)
			env.Setenv("CNI_PATH", cniPath(h.t))
			env.Setenv("NS", "/run/netns")
			env.Setenv("PATH", strings.Join([]string{bin, tools, "/usr/sbin", "/usr/bin", "/sbin", "/bin"}, ":"))
			return err
		},
		Cmds:                commands,
		RequireExplicitExec: true,
	})
}

// script is the host of one script.
type script struct {
	*host
	kept map[string]snapshot
}

type command = func(ts *testscript.TestScript, neg bool, args []string)

var commands = map[string]command{
	"netns":        plain(1, func(s *script, a []string) { s.netns(a[0]) }),
	"rmnetns":      plain(1, func(s *script, a []string) { s.loseNetns(a[0]) }),
	"world":        plain(0, func(s *script, _ []string) { s.world() }),
	"ping":         plain(2, func(s *script, a []string) { s.ping(place(a[0]), netip.MustParseAddr(a[1])) }),
	"noping":       plain(2, func(s *script, a []string) { s.noPing(place(a[0]), netip.MustParseAddr(a[1])) }),
	"serve":        plain(2, func(s *script, a []string) { s.serve(a[0], a[1]) }),
	"dial":         plain(3, func(s *script, a []string) { s.dial(a[0], a[1], a[2]) }),
	"addr":         either(3, (*script).hasAddr),
	"route":        either(3, (*script).hasRoute),
	"link":         either(2, (*script).hasLinkNamed),
	"links":        plain(1, func(s *script, a []string) { s.kept[a[0]] = s.snapshot() }),
	"same":         same,
	"nodir-leases": plain(1, func(s *script, a []string) { s.hasLeases(a[0], 0) }),
	"attached":     plain(2, func(s *script, a []string) { s.hasLeases(a[0], s.number(a[1])) }),
}

// plain is a command with n arguments that cannot be negated.
func plain(n int, fn func(*script, []string)) command {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != n {
			ts.Fatalf("want %d arguments and no '!'", n)
		}
		s := ts.Value("host").(*script)
		fn(s, args)
		if s.t.Failed() {
			ts.Fatalf("see above")
		}
	}
}

// either is a command with n arguments that says if something is so.
func either(n int, fn func(*script, []string) bool) command {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if len(args) != n {
			ts.Fatalf("want %d arguments", n)
		}
		if is := fn(ts.Value("host").(*script), args); is == neg {
			ts.Fatalf("it is not so")
		}
	}
}

func same(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("want a snapshot's name")
	}
	pattern := strings.Join(args[1:], " ")
	plain(1, func(s *script, a []string) { s.sameBut(s.kept[a[0]], pattern) })(ts, neg, args[:1])
}

// place is the path of a namespace; "host" is ours.
func place(name string) string {
	if name == "host" {
		return ""
	}
	return netnsPath(name)
}

// serve answers connections with the namespace's name until the test ends.
func (s *script) serve(name, port string) {
	s.t.Helper()
	var l net.Listener
	s.in(place(name), func() {
		var err error
		l, err = net.Listen("tcp", ":"+port)
		s.check(err)
	})
	s.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, name)
			_ = conn.Close()
		}
	}()
}

func (s *script) dial(from, addr, server string) {
	s.t.Helper()
	s.in(place(from), func() {
		conn, err := lntest.Dial("tcp", addr, pingWait)
		s.check(err)
		s.check(conn.SetDeadline(time.Now().Add(pingWait)))
		said, err := io.ReadAll(conn)
		s.check(err)
		s.check(conn.Close())
		if string(said) != server {
			s.t.Errorf("%s from %s: %q answers, want %q", addr, from, said, server)
		}
	})
}

func (s *script) hasAddr(a []string) (has bool) {
	s.in(place(a[0]), func() {
		for _, p := range linkAddresses(s.t, a[1]) {
			has = has || p.String() == a[2]
		}
	})
	return has
}

func (s *script) hasRoute(a []string) (has bool) {
	s.in(place(a[0]), func() {
		routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
		s.check(err)
		for _, r := range routes {
			has = has || r.Dst != nil && r.Dst.String() == a[1] && r.Gw.String() == a[2]
		}
	})
	return has
}

func (s *script) hasLinkNamed(a []string) (has bool) {
	s.in(place(a[0]), func() {
		_, err := netlink.LinkByName(a[1])
		has = err == nil
	})
	return has
}

func (s *script) number(text string) int {
	s.t.Helper()
	n, err := strconv.Atoi(text)
	s.check(err)
	return n
}

func (s *script) hasLeases(network string, n int) {
	s.t.Helper()
	if all := leases(s.t, network); len(all) != n {
		s.t.Errorf("network %s has %d leases, want %d:\n%s", network, len(all), n, strings.Join(all, "\n"))
	}
}
