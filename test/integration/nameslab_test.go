package integration

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// namesLab is a host with ln-agent, containers on four networks, and a name server
// outside, at worldAddr, that knows outside.test and nothing else:
//
//	front  names, IPv4 and IPv6, a way out
//	back   names in the domain back.test, IPv4, a way out
//	inner  names, internal
//	plain  no names, a way out
type namesLab struct {
	*host
	agent   *agentProc
	at      map[string][]netip.Prefix // addresses by container/network
	mu      sync.Mutex
	outside []string // what the server outside was asked, as "192.0.2.1 outside.test."
	// responder of all networks with names; empty: as without the key.
	responder string
	aardvark  string // file of its names for the network front; empty: it does not run
}

func newNamesLab(t testing.TB) *namesLab {
	t.Helper()
	program(t, "ln-agent")
	l := &namesLab{host: newHost(t), at: map[string][]netip.Prefix{}}
	l.world()
	l.check(lntest.NoDAD())
	l.serveOutside()
	return l
}

// namesConf is the configuration of a network; extra keys win.
func (l *namesLab) namesConf(network string, extra map[string]any) string {
	l.t.Helper()
	number := slices.Index([]string{"", "front", "back", "inner", "plain"}, network)
	ranges := []any{[]any{map[string]any{"subnet": fmt.Sprintf("10.70.%d.0/24", number)}}}
	if network == "front" {
		ranges = append(ranges, []any{map[string]any{"subnet": "fd70:1::/64"}})
	}
	keys := map[string]any{
		"cniVersion": "1.1.0", "name": network, "type": "bridge-ln", "bridge": "br-" + network, "names": true,
		"capabilities": map[string]any{"aliases": true}, "ipam": map[string]any{"type": "ipam-ln", "ranges": ranges, "dataDir": "/run/leases"},
	}
	switch network {
	case "inner":
		keys["internal"], keys["isGateway"] = true, true
	case "back":
		keys["names"] = map[string]any{"domain": "back.test"}
	case "plain":
		delete(keys, "names")
	}
	if network != "inner" {
		keys["gatewayMode"] = "nat"
	}
	if l.responder != "" && network != "plain" {
		with := map[string]any{"responder": l.responder}
		if network == "back" {
			with["domain"] = "back.test"
		}
		keys["names"] = with
	}
	for k, v := range extra {
		keys[k] = v
	}
	text, err := json.Marshal(keys)
	l.check(err)
	return string(text)
}

// join adds a container, whose name is CNI_ARGS NAME, to networks: eth0, eth1 and so on.
func (l *namesLab) join(name string, networks ...string) {
	l.t.Helper()
	if _, err := os.Stat(netnsPath(name)); err != nil {
		l.netns(name)
	}
	for i, network := range networks {
		r := parseResult(l.t, l.must(l.call(name, network, i).as("ADD")).stdout)
		l.at[name+"/"+network] = r.addresses(l.t)
	}
}

func (l *namesLab) call(name, network string, i int) call {
	return call{plugin: "bridge-ln", cid: name + "-0123456789abcdef", netns: netnsPath(name), ifName: fmt.Sprint("eth", i), args: "NAME=" + name, stdin: l.namesConf(network, nil)}
}

// serveOutside answers from the world: outside.test is 203.0.113.7, the rest is not.
func (l *namesLab) serveOutside() {
	l.t.Helper()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		from, _, _ := strings.Cut(w.RemoteAddr().String(), "]:")
		if a, err := netip.ParseAddrPort(w.RemoteAddr().String()); err == nil {
			from = a.Addr().String()
		}
		l.mu.Lock()
		l.outside = append(l.outside, from+" "+q.Question[0].Name)
		l.mu.Unlock()
		m := new(dns.Msg)
		m.SetReply(q)
		switch name := strings.ToLower(q.Question[0].Name); {
		case name == "large.test.":
			for i := range 100 {
				m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: []byte{203, 0, 113, byte(i)}})
			}
			if w.RemoteAddr().Network() == "udp" {
				m.Truncate(dns.MinMsgSize)
			}
		case name != "outside.test.":
			m.Rcode = dns.RcodeNameError
		case q.Question[0].Qtype == dns.TypeA:
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: []byte{203, 0, 113, 7}})
		}
		_ = w.WriteMsg(m)
	})
	started := make(chan struct{}, 2)
	for _, network := range []string{"udp", "tcp"} {
		s := &dns.Server{Net: network, Handler: handler, NotifyStartedFunc: func() { started <- struct{}{} }}
		l.in(netnsPath("world"), func() {
			var err error
			if network == "udp" {
				s.PacketConn, err = listenPacket(":53")
			} else {
				s.Listener, err = listenTCP(":53")
			}
			l.check(err)
		})
		go func() { _ = s.ActivateAndServe() }()
		l.t.Cleanup(func() { _ = s.Shutdown() })
	}
	<-started
	<-started
}

// startAgent starts ln-agent --local.
func (l *namesLab) startAgent(args ...string) {
	l.t.Helper()
	l.startBuild(program(l.t, "ln-agent"), args...)
}

// startBuild starts another build of ln-agent, by its path.
func (l *namesLab) startBuild(path string, args ...string) {
	l.t.Helper()
	p := &agentProc{log: &tail{}, done: make(chan error, 1)}
	p.cmd = exec.Command(path, append([]string{"--local", "--listen", ""}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	l.check(p.cmd.Start())
	go func() { p.done <- p.cmd.Wait() }()
	l.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		p.done <- <-p.done
		if l.t.Failed() {
			l.t.Logf("ln-agent:\n%s", p.log)
		}
	})
	l.agent = p
	l.await("ln-agent starts", func() bool { return strings.Contains(p.log.String(), "ln-agent starts") })
}

// await waits for an event.
func (l *namesLab) await(what string, is func() bool) {
	l.t.Helper()
	start := time.Now()
	for !is() {
		if time.Since(start) > 30*time.Second {
			l.t.Fatalf("%s: not within %s", what, time.Since(start))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// captured waits until the agent takes queries.
func (l *namesLab) captured() {
	l.t.Helper()
	l.await("capture", func() bool { return strings.Contains(l.agent.log.String(), "are captured") })
}

// query asks a server from a container, once.
type query struct {
	from, server, name string
	qtype              uint16
	network            string        // "" is udp
	patience           time.Duration // 0: long
}

func (l *namesLab) ask(q query) (*dns.Msg, error) {
	l.t.Helper()
	m := new(dns.Msg)
	if q.qtype == 0 {
		q.qtype = dns.TypeA
	}
	if q.server == "" {
		q.server = worldAddr(false).String()
	}
	m.SetQuestion(dns.Fqdn(q.name), q.qtype)
	c := &dns.Client{Net: q.network, Timeout: q.patience}
	if q.patience == 0 {
		c.Timeout = lntest.WaitForAnswer
	}
	var answer *dns.Msg
	var err error
	ns := ""
	if q.from != "host" {
		ns = netnsPath(q.from)
	}
	l.in(ns, func() { answer, _, err = c.Exchange(m, netip.AddrPortFrom(netip.MustParseAddr(q.server), 53).String()) })
	return answer, err
}

// answers returns what came, in words: addresses, "nodata", "nxdomain", or "-" for nothing.
func (l *namesLab) answers(q query) string {
	l.t.Helper()
	m, err := l.ask(q)
	switch {
	case err != nil:
		return "-"
	case m.Rcode == dns.RcodeNameError:
		return "nxdomain"
	case m.Rcode != dns.RcodeSuccess:
		return dns.RcodeToString[m.Rcode]
	case len(m.Answer) == 0:
		return "nodata"
	}
	var all []string
	for _, rr := range m.Answer {
		all = append(all, strings.Fields(rr.String())[4])
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// address of a container on a network.
func (l *namesLab) address(name, network string, is6 bool) string {
	l.t.Helper()
	for _, p := range l.at[name+"/"+network] {
		if p.Addr().Is6() == is6 {
			return p.Addr().String()
		}
	}
	l.t.Fatalf("%s has no such address on %s: %v", name, network, l.at)
	return ""
}

// resolvConf has the programs that the test starts see this /etc/resolv.conf.
func (l *namesLab) resolvConf(lines ...string) {
	l.t.Helper()
	path := filepath.Join(l.t.TempDir(), "resolv.conf")
	l.check(os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644))
	l.check(unix.Mount(path, "/etc/resolv.conf", "", unix.MS_BIND, ""))
	l.t.Cleanup(func() { _ = unix.Unmount("/etc/resolv.conf", unix.MNT_DETACH) })
}

// tool runs a program in the container web and returns what it prints.
func (l *namesLab) tool(args ...string) (out string, err error) {
	l.t.Helper()
	l.in(netnsPath("web"), func() {
		var b []byte
		b, err = exec.Command(args[0], args[1:]...).CombinedOutput()
		out = string(b)
	})
	return out, err
}
