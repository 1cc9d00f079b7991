package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

func TestMain(m *testing.M) { os.Exit(lntest.Main(m)) }

// lab is a host with bridge br0, two containers on it, and an outside host with a
// server at port 53 that says from where it is asked:
//
//	a 10.10.0.2, fd10::2 ─ pa ┐
//	b 10.10.0.3, fd10::3 ─ pb ─ br0 host out ─ 192.0.2.2, fd20::2
//
// The test's own namespace is the host.
type lab struct {
	t         testing.TB
	a, b, out string // paths of namespaces
}

func newLab(t testing.TB, netfilter string) *lab {
	t.Helper()
	lntest.Isolate(t)
	l := &lab{t: t, a: lntest.NewNetns(t), b: lntest.NewNetns(t), out: lntest.NewNetns(t)}
	l.must(lntest.NoDAD())
	for _, what := range []string{"bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"} {
		l.must(lntest.Sysctl(what, netfilter))
	}
	l.must(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}))
	l.must(lntest.Up("br0", "10.10.0.1/24", "fd10::1/64"))
	l.wire("pa", l.a, []string{"10.10.0.2/24", "fd10::2/64"}, "10.10.0.1", "fd10::1")
	l.wire("pb", l.b, []string{"10.10.0.3/24", "fd10::3/64"}, "10.10.0.1", "fd10::1")
	l.wire("out", l.out, []string{"192.0.2.2/24", "fd20::2/64"}, "192.0.2.1", "fd20::1")
	lntest.Plug(t, "pa", "br0")
	lntest.Plug(t, "pb", "br0")
	l.must(lntest.Up("out", "192.0.2.1/24", "fd20::1/64"))
	l.must(lntest.Sysctl("ipv4/ip_forward", "1"))
	l.must(lntest.Sysctl("ipv6/conf/all/forwarding", "1"))
	l.serve(l.out)
	l.serve(l.b)
	return l
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) wire(name, path string, cidrs []string, gateways ...string) {
	l.t.Helper()
	lntest.Wire(l.t, name, path, func() error {
		return errors.Join(lntest.Up("eth0", cidrs...), lntest.Via(gateways...))
	})
}

// serve answers each message to port 53 with "server saw <source>".
func (l *lab) serve(path string) {
	l.t.Helper()
	l.must(lntest.In(l.t, path, func() error {
		u, err := net.ListenPacket("udp", ":53")
		if err != nil {
			return err
		}
		s, err := net.Listen("tcp", ":53")
		if err != nil {
			return err
		}
		l.t.Cleanup(func() { _ = errors.Join(u.Close(), s.Close()) })
		go func() {
			buf := make([]byte, 2048)
			for {
				n, from, err := u.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = u.WriteTo(fmt.Appendf(nil, "server saw %s to %s", from, buf[:n]), from)
			}
		}()
		go func() {
			for {
				c, err := s.Accept()
				if err != nil {
					return
				}
				go func() {
					defer func() { _ = c.Close() }()
					for {
						if _, err := readMessage(c); err != nil {
							return
						}
						host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
						if write(c, "server saw "+host) != nil {
							return
						}
					}
				}()
			}
		}()
		return nil
	}))
}

func write(c net.Conn, m string) error {
	_, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...))
	return err
}

// ask sends messages from a namespace by one socket, and returns the answers.
func (l *lab) ask(path, network, server string, messages ...string) (answers []string, err error) {
	err = lntest.In(l.t, path, func() error {
		c, err := net.DialTimeout(network, net.JoinHostPort(server, "53"), lntest.WaitForAnswer)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		local := c.LocalAddr().String()
		for _, m := range messages {
			var answer string
			if network == "udp" {
				answer, err = exchange(c, m)
			} else if err = write(c, m); err == nil {
				var b []byte
				_ = c.SetReadDeadline(time.Now().Add(lntest.WaitForAnswer))
				b, err = readMessage(c)
				answer = string(b)
			}
			if err != nil {
				return err
			}
			answers = append(answers, strings.ReplaceAll(answer, local, "me"))
		}
		return nil
	})
	return answers, err
}

// exchange is lntest.Exchange, but an answer that comes late to the message before is
// none to this one.
func exchange(c net.Conn, m string) (string, error) {
	for {
		answer, err := lntest.Exchange(c, m, lntest.WaitForAnswer)
		what, ours := strings.CutSuffix(answer, " to "+m)
		if err != nil || ours {
			return what, err
		}
	}
}

// respond answers messages with "ours" in them, and names the client.
func respond(q Query) []byte {
	if !bytes.Contains(q.Message, []byte("ours")) {
		return nil
	}
	answer := fmt.Appendf(nil, "%s asked %s by %q", q.From, q.To, q.Bridge)
	if !q.TCP {
		answer = fmt.Appendf(answer, " to %s", q.Message)
	}
	return answer
}

func (l *lab) start(c Config) *Capture {
	l.t.Helper()
	if c.Respond == nil {
		c.Respond = respond
	}
	c.Inside = func(from netip.Addr, fn func() error) error {
		for path, addrs := range map[string][]string{l.a: {"10.10.0.2", "fd10::2"}, l.b: {"10.10.0.3", "fd10::3"}} {
			if strings.Contains(strings.Join(addrs, " ")+" ", from.String()+" ") {
				return lntest.In(l.t, path, fn)
			}
		}
		return fmt.Errorf("no container has %s", from)
	}
	made, err := Start(c)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { l.must(made.Close()) })
	l.must(made.Set(from("10.10.0.0/24", "fd10::/64")))
	return made
}

// from is what Set is called with.
func from(prefixes ...string) func() []netip.Prefix {
	return func() (all []netip.Prefix) {
		for _, p := range prefixes {
			all = append(all, netip.MustParsePrefix(p))
		}
		return all
	}
}

// Queries to whatever server are answered from there; what is not ours comes to the
// server from the container's own address and port. br_netfilter makes no difference,
// but for a server on the same bridge: without it these frames are not seen.
func TestCapture(t *testing.T) {
	for _, netfilter := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables="+netfilter, func(t *testing.T) {
			l := newLab(t, netfilter)
			l.start(Config{})
			for _, c := range []struct {
				network, server string
				foreign         string // answer to what is not ours; empty: none
				onBridge        bool
			}{
				{network: "udp", server: "192.0.2.2", foreign: "server saw me"},
				{network: "udp", server: "fd20::2", foreign: "server saw me"},
				{network: "tcp", server: "192.0.2.2", foreign: "server saw 10.10.0.2"},
				{network: "tcp", server: "fd20::2", foreign: "server saw fd10::2"},
				{network: "udp", server: "203.0.113.9"}, // nothing is there
				{network: "tcp", server: "203.0.113.9"},
				{network: "udp", server: "10.10.0.1"}, // the host, which has no server
				{network: "tcp", server: "10.10.0.1"},
				{network: "udp", server: "fd10::1"},
				{network: "tcp", server: "fd10::1"},
				{network: "udp", server: "10.10.0.3", foreign: "server saw me", onBridge: true},
				{network: "tcp", server: "10.10.0.3", foreign: "server saw 10.10.0.2", onBridge: true},
			} {
				to := netip.AddrPortFrom(netip.MustParseAddr(c.server), 53)
				from, by := "10.10.0.2", "br0"
				if to.Addr().Is6() {
					from = "fd10::2"
				}
				if c.network == "tcp" {
					by = ""
				}
				ours := fmt.Sprintf("%s asked %s by %q", from, to, by)
				if c.onBridge && netfilter == "0" {
					ours = c.foreign
				}
				messages, want := []string{"this is ours", "ours again, too"}, []string{ours, ours}
				if c.foreign != "" {
					messages, want = append(messages, "for another one", "this is ours"), append(want, c.foreign, ours)
				}
				got, err := l.ask(l.a, c.network, c.server, messages...)
				if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s to %s: %q, %v, want %q", c.network, c.server, got, err, want)
				}
			}
			// The outside is not concerned, and neither are the host's own queries.
			for path, server := range map[string]string{l.out: "10.10.0.3", "/proc/thread-self/ns/net": "192.0.2.2"} {
				if path != l.out {
					continue
				}
				got, err := l.ask(path, "udp", server, "this is ours")
				if err != nil || fmt.Sprint(got) != "[server saw me]" {
					t.Errorf("from outside: %q, %v", got, err)
				}
			}
		})
	}
}

// The listener has an address of every network, and is for redirected connections.
func TestListenerIsClosedToOthers(t *testing.T) {
	l := newLab(t, "0")
	c := l.start(Config{})
	for _, from := range []string{l.out, l.a} {
		for _, server := range []string{"10.10.0.1", "192.0.2.1"} {
			err := lntest.In(t, from, func() error {
				conn, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", server, c.tcp.port(c.tcp.v4)), lntest.WaitForNone)
				if err == nil {
					_ = conn.Close()
				}
				return err
			})
			if err == nil {
				t.Errorf("the listener accepts a connection to %s", server)
			}
		}
	}
}

// One container that talks nonsense, or nothing, keeps no other from its answers.
func TestBadClients(t *testing.T) {
	l := newLab(t, "1")
	l.start(Config{})
	err := lntest.In(t, l.b, func() error {
		for i := range 3 * mostConnsEach {
			c, err := net.DialTimeout("tcp", "192.0.2.2:53", lntest.WaitForAnswer)
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = c.Close() })
			switch i % 4 {
			case 0: // silent
			case 1:
				_, err = c.Write([]byte{0, 200, 1})
			case 2:
				_, err = c.Write([]byte{0, 3, 1, 2, 3})
			case 3:
				_, err = c.Write(append([]byte{255, 255}, make([]byte, 20000)...))
			}
			if err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
				return err
			}
		}
		u, err := net.Dial("udp", "192.0.2.2:53")
		if err != nil {
			return err
		}
		defer func() { _ = u.Close() }()
		for i := range 100 {
			_, _ = u.Write(bytes.Repeat([]byte{0xc0}, i*13))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"udp", "tcp"} {
		got, err := l.ask(l.a, network, "192.0.2.2", "this is ours", "for another one")
		if err != nil || len(got) != 2 || !strings.HasPrefix(got[0], "10.10.0.2 asked") || !strings.HasPrefix(got[1], "server saw") {
			t.Errorf("%s beside bad clients: %q, %v", network, got, err)
		}
	}
}

// A query in fragments is not ours to read, and arrives.
func TestParse(t *testing.T) {
	d := datagram{from: netip.MustParseAddrPort("10.0.0.1:53"), to: netip.MustParseAddrPort("10.0.0.2:4000")}
	whole := build(nil, d, []byte("some answer"))
	if got, ok := parse(whole); !ok || got.from != d.to || got.to != d.from || string(got.data) != "some answer" {
		t.Errorf("parse of what build made: %+v %v", got, ok)
	}
	for name, change := range map[string]func(p []byte) []byte{
		"more fragments":   func(p []byte) []byte { p[6] |= 0x20; return p },
		"a later fragment": func(p []byte) []byte { p[7] = 1; return p },
		"tcp":              func(p []byte) []byte { p[9] = 6; return p },
		"cut":              func(p []byte) []byte { return p[:len(p)-1] },
		"empty":            func(p []byte) []byte { return nil },
		"ipv5":             func(p []byte) []byte { p[0] = 0x55; return p },
		"short head":       func(p []byte) []byte { p[0] = 0x44; return p },
		"udp too long":     func(p []byte) []byte { p[25] = 255; return p },
		"udp too short":    func(p []byte) []byte { p[24], p[25] = 0, 7; return p },
	} {
		if got, ok := parse(change(bytes.Clone(whole))); ok {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"10.0.0.1:53", "[fd00::1]:53"} {
		a := netip.MustParseAddrPort(s)
		f.Add(build(nil, datagram{from: a, to: a}, []byte("answer")))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		d, ok := parse(p)
		if !ok {
			return
		}
		back, ok := parse(build(nil, d, d.data))
		if !ok || back.from != d.to || back.to != d.from || !bytes.Equal(back.data, d.data) {
			t.Errorf("%x: %+v, %+v %v", p, d, back, ok)
		}
	})
}

// Overlapping networks are one interval.
func TestDisjoint(t *testing.T) {
	var all []netip.Prefix
	for _, s := range []string{"10.2.0.0/16", "10.1.0.5/32", "10.2.3.0/24", "10.1.0.5/32", "fd00::1/64", "10.2.0.7/8"} {
		all = append(all, netip.MustParsePrefix(s))
	}
	if got := fmt.Sprint(disjoint(all)); got != "[10.0.0.0/8 fd00::/64]" {
		t.Errorf("got %s", got)
	}
}

// Rules go when no network is left, come again, and are not there after Close.
func TestRulesComeAndGo(t *testing.T) {
	l := newLab(t, "0")
	c, err := Start(Config{Respond: respond, Limit: 1000})
	l.must(err)
	l.must(c.Set(from("10.10.0.0/24", "fd10::/64")))
	list := func() string {
		out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	if got := list(); !strings.Contains(got, TableName) || !strings.Contains(got, "rates6") {
		t.Errorf("no rules:\n%s", got)
	}
	if _, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil || !strings.Contains(list(), TableName) {
		t.Errorf("another program can flush them: %v", err)
	}
	l.must(c.Set(from("10.10.0.0/24")))
	if got, err := l.ask(l.a, "udp", "192.0.2.2", "this is ours"); err != nil || got[0] == "server saw me" {
		t.Errorf("of two prefixes the one that stays: %q %v", got, err)
	}
	if got, err := l.ask(l.a, "udp", "fd20::2", "this is ours"); err != nil || got[0] != "server saw me" {
		t.Errorf("IPv6 without a prefix: %q %v", got, err)
	}
	l.must(c.Set(from()))
	if got, err := l.ask(l.a, "udp", "192.0.2.2", "this is ours"); err != nil || got[0] != "server saw me" {
		t.Errorf("without a prefix: %q %v", got, err)
	}
	l.must(c.Set(from("10.0.0.0/8", "fd10::/64"))) // another one than before
	for _, server := range []string{"192.0.2.2", "fd20::2"} {
		if got, err := l.ask(l.a, "udp", server, "this is ours"); err != nil || got[0] == "server saw me" {
			t.Errorf("after they came again: %q %v", got, err)
		}
	}
	if second, err := Start(Config{Respond: respond}); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second one: %v %v, want it refused", second, err)
	}
	if got := list(); !strings.Contains(got, TableName) {
		t.Errorf("the second one took the rules of the first")
	}
	l.must(c.Close())
	if got := list(); strings.Contains(got, TableName) {
		t.Errorf("rules after Close:\n%s", got)
	}
}

// Rules that stayed behind, as on kernels that do not remove them with the process, hold up no
// query, and the next capture puts its own in their place: also if those are of another form.
func TestRulesThatStayedBehind(t *testing.T) {
	l := newLab(t, "0")
	for _, limit := range []int{0, 1000} {
		left, err := newTable(tableConfig{queue: firstQueue + 7, queues: 1, port4: 9, port6: 9, limit: limit})
		l.must(err)
		left.unowned = true
		l.must(left.make(from("10.10.0.0/24", "fd10::/64")()))
		l.must(left.conn.close()) // and not its rules
		for _, server := range []string{"192.0.2.2", "fd20::2"} {
			if got, err := l.ask(l.a, "udp", server, "this is ours"); err != nil || got[0] != "server saw me" {
				t.Errorf("from %s while only the rules are there: %q %v", server, got, err)
			}
		}
		c, err := Start(Config{Respond: respond, Limit: 1000})
		l.must(err)
		l.must(c.Set(from("10.10.0.0/24", "fd10::/64")))
		for _, network := range []string{"udp", "tcp"} {
			for _, server := range []string{"192.0.2.2", "fd20::2"} {
				if got, err := l.ask(l.a, network, server, "this is ours"); err != nil || strings.HasPrefix(got[0], "server saw") {
					t.Errorf("%s from %s after they were taken over: %q %v", network, server, got, err)
				}
			}
		}
		if out, err := exec.Command("nft", "delete", "table", "inet", TableName).CombinedOutput(); err == nil {
			t.Errorf("another program could delete the rules: %s", out)
		}
		l.must(c.Close())
	}
}

// By an interface of the group the first query is captured, from any source; a connection
// once Early has named its source.
func TestGroup(t *testing.T) {
	for _, netfilter := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables="+netfilter, func(t *testing.T) {
			l := newLab(t, netfilter)
			var c atomic.Pointer[Capture]
			var early atomic.Int32
			made, err := Start(Config{Respond: respond, Group: 5353, Limit: 1000, Early: func() {
				early.Add(1)
				if err := c.Load().Set(from("10.10.0.2/32", "fd10::2/128")); err != nil {
					t.Error(err)
				}
			}})
			l.must(err)
			c.Store(made)
			t.Cleanup(func() { l.must(made.Close()) })
			ours := func(network, server string) bool {
				got, err := l.ask(l.a, network, server, "this is ours")
				if err != nil {
					t.Errorf("%s to %s: %v", network, server, err)
					return false
				}
				return !strings.HasPrefix(got[0], "server saw")
			}
			if ours("udp", "192.0.2.2") || ours("tcp", "192.0.2.2") || early.Load() != 0 {
				t.Errorf("a query by an interface of no group is captured (%d)", early.Load())
			}
			l.must(inGroupNumber("br0", 5353))
			for _, server := range []string{"192.0.2.2", "fd20::2"} {
				if !ours("udp", server) {
					t.Errorf("a query to %s by an interface of the group is not captured", server)
				}
			}
			if early.Load() != 0 {
				t.Errorf("a query is taken for a connection")
			}
			for range 3 {
				for _, server := range []string{"192.0.2.2", "fd20::2"} {
					if !ours("tcp", server) {
						t.Errorf("a connection to %s by an interface of the group is not captured", server)
					}
				}
			}
			if n := early.Load(); n != 1 {
				t.Errorf("%d connections were asked about, want the first one only", n)
			}
		})
	}
}

// inGroupNumber puts an interface into a group.
func inGroupNumber(name string, group int) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetGroup(l, group)
}

// More queries than the limit pass untouched, and other containers are not touched.
func TestLimit(t *testing.T) {
	l := newLab(t, "0")
	l.start(Config{Limit: 5})
	count := func(path string, n int) (ours int) {
		for range n {
			got, err := l.ask(path, "udp", "192.0.2.2", "this is ours")
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(got[0], "asked") {
				ours++
			}
		}
		return ours
	}
	if ours := count(l.a, 200); ours < 5 || ours > 150 {
		t.Errorf("%d of 200 queries were taken", ours)
	}
	if ours := count(l.b, 5); ours != 5 {
		t.Errorf("%d of another container's 5 queries were taken", ours)
	}
}
