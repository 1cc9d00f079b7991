package integration

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

func listenPacket(at string) (net.PacketConn, error) { return net.ListenPacket("udp", at) }

func listenTCP(at string) (net.Listener, error) { return net.Listen("tcp", at) }

// The tables say which container resolves which: web is on front, db on front and back,
// lone on back, in1 and in2 on inner, which is internal, bare on plain, which has no
// names. Each asks the server outside; host is the host itself.
//
//	✓  the address on a network that both are on
//	✗  the server outside was asked, and does not know the name; from an internal
//	   network no answer comes
//	o  the answer of the server outside
//	n  the name is known, and has no address of the family
const (
	allTable = `
	         web  db  lone  in1  in2  bare  outside.test  web/6  db/6
	web      ✓    ✓   ✗     ✗    ✗    ✗     o             ✓      ✓
	db       ✓    ✓   ✓     ✗    ✗    ✗     o             ✓      ✓
	lone     ✗    ✓   ✓     ✗    ✗    ✗     o             ✗      n
	in1      ✗    ✗   ✗     ✓    ✓    ✗     ✗             ✗      ✗
	bare     ✗    ✗   ✗     ✗    ✗    ✗     o             ✗      ✗
	host     ✗    ✗   ✗     ✗    ✗    ✗     o             ✗      ✗
	`
	// Without an agent nothing is captured, and nothing is lost.
	noneTable = `
	         web  db  lone  in1  in2  bare  outside.test  web/6  db/6
	web      ✗    ✗   ✗     ✗    ✗    ✗     o             ✗      ✗
	db       ✗    ✗   ✗     ✗    ✗    ✗     o             ✗      ✗
	lone     ✗    ✗   ✗     ✗    ✗    ✗     o             ✗      ✗
	in1      ✗    ✗   ✗     ✗    ✗    ✗     ✗             ✗      ✗
	bare     ✗    ✗   ✗     ✗    ✗    ✗     o             ✗      ✗
	host     ✗    ✗   ✗     ✗    ✗    ✗     o             ✗      ✗
	`
	// After DEL of web and of db's attachment to front.
	lessTable = `
	         web  db  lone  in1  in2  bare  outside.test  web/6  db/6
	db       ✗    ✓   ✓     ✗    ✗    ✗     o             ✗      n
	lone     ✗    ✓   ✓     ✗    ✗    ✗     o             ✗      n
	`
)

// holds asks every question of a table.
func (l *namesLab) holds(event, table string) {
	l.t.Helper()
	lines := strings.Split(strings.TrimSpace(table), "\n")
	names := strings.Fields(lines[0])
	for _, line := range lines[1:] {
		cells := strings.Fields(line)
		for i, want := range cells[1:] {
			got := l.cell(cells[0], names[i])
			if got != want {
				l.t.Errorf("%s: %s asks for %s: %s, want %s", event, cells[0], names[i], got, want)
			}
		}
	}
}

// cell asks a question and says what came, as in the tables.
func (l *namesLab) cell(from, name string) string {
	l.t.Helper()
	name, is6 := strings.CutSuffix(name, "/6")
	q := query{from: from, name: name}
	if is6 {
		q.qtype = dns.TypeAAAA
	}
	if from == "in1" {
		q.patience = lntest.WaitForNone
	}
	got := l.answers(q)
	switch {
	case got == "203.0.113.7":
		return "o"
	case got == "nodata":
		return "n"
	case got == "nxdomain", got == "-" && from == "in1":
		return "✗"
	}
	for _, network := range []string{"front", "back", "inner"} {
		for _, p := range l.at[name+"/"+network] {
			if _, both := l.at[from+"/"+network]; both && p.Addr().String() == got {
				return "✓"
			}
		}
	}
	return got
}

// all joins the containers of the tables.
func (l *namesLab) all() {
	l.t.Helper()
	l.join("web", "front")
	l.join("db", "front", "back")
	l.join("lone", "back")
	l.join("in1", "inner")
	l.join("in2", "inner")
	l.join("bare", "plain")
	l.route(netnsPath("in1"), "0.0.0.0/0", "10.70.3.1") // it tries to get out
}

// Each container asks for each, from the first container to the end of the agent, by kill -9 and by
// SIGTERM, and after its restart; with br_netfilter and without.
func TestNames(t *testing.T) {
	for _, netfilter := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables="+netfilter, func(t *testing.T) {
			l := newNamesLab(t)
			l.check(lntest.Sysctl("bridge/bridge-nf-call-iptables", netfilter))
			l.check(lntest.Sysctl("bridge/bridge-nf-call-ip6tables", netfilter))
			l.startAgent()
			l.all()
			l.captured()
			l.holds("after ADD", allTable)
			l.check(l.agent.cmd.Process.Kill())
			l.agent.done <- <-l.agent.done
			l.holds("after kill -9 of the agent", noneTable)
			l.startAgent()
			l.captured()
			l.holds("after its restart", allTable)
			l.check(l.agent.end(t, unix.SIGTERM))
			l.holds("after SIGTERM", noneTable)
			l.startAgent()
			l.captured()
			l.must(l.call("web", "front", 0).as("DEL"))
			l.must(l.call("db", "front", 0).as("DEL"))
			delete(l.at, "web/front")
			delete(l.at, "db/front")
			l.route(netnsPath("db"), "0.0.0.0/0", "10.70.2.1")
			l.holds("after DEL", lessTable)
			if got := l.answers(query{from: "lone", name: "nothing.back.test"}); got != "nxdomain" {
				t.Errorf("a name of our own domain that is not there: %s", got)
			}
			for _, asked := range l.outside {
				if strings.HasSuffix(asked, "nothing.back.test.") || strings.HasPrefix(asked, "10.70.3.") {
					t.Errorf("the server outside was asked: %s", asked)
				}
			}
		})
	}
}

// A name resolves as soon as ADD has returned, and is gone as soon as DEL has; never
// is the answer the address of a container that is gone.
func TestNamesAtOnce(t *testing.T) {
	l := newNamesLab(t)
	l.startAgent()
	l.join("web", "front")
	l.captured()
	for range 20 {
		if got := l.answers(query{from: "web", name: "late"}); got != "nxdomain" {
			t.Fatalf("before ADD: %s", got)
		}
		l.join("late", "front")
		if got, want := l.answers(query{from: "web", name: "late"}), l.address("late", "front", false); got != want {
			t.Errorf("after ADD: %s, want %s", got, want)
		}
		if got, want := l.answers(query{from: "late", name: "web"}), l.address("web", "front", false); got != want {
			t.Errorf("the new container asks: %s, want %s", got, want)
		}
		l.must(l.call("late", "front", 0).as("DEL"))
		if got := l.answers(query{from: "web", name: "late"}); got != "nxdomain" {
			t.Fatalf("after DEL: %s", got)
		}
	}
}

// The first query of the first container of a network that the agent has not heard of
// is answered, over UDP and TCP; without an agent nothing of it is lost.
func TestNamesOfNewNetworks(t *testing.T) {
	t.Parallel()
	l := newNamesLab(t)
	l.startAgent()
	l.captured()
	round := func(i int, name, want string) {
		t.Helper()
		network := fmt.Sprint("new", i)
		conf := l.namesConf("front", map[string]any{
			"name": network, "bridge": "br-" + network,
			"ipam": map[string]any{"type": "ipam-ln", "ranges": []any{[]any{map[string]any{"subnet": fmt.Sprintf("10.71.%d.0/24", i)}}}, "dataDir": "/run/leases"},
		})
		c := call{plugin: "bridge-ln", cid: "first", netns: netnsPath("first"), ifName: "eth0", args: "NAME=self", stdin: conf}
		q := query{from: "first", name: name, network: []string{"udp", "tcp"}[i%2]}
		l.must(c.as("ADD"))
		if got := l.answers(q); got != want {
			t.Errorf("round %d over %s: %s is %s, want %s", i, q.network, name, got, want)
		}
		l.must(c.as("DEL"))
	}
	l.netns("first")
	for i := range 200 {
		round(i, "self", fmt.Sprintf("10.71.%d.2", i))
	}
	l.check(l.agent.cmd.Process.Kill())
	l.agent.done <- <-l.agent.done
	for i := range 20 {
		round(i, "outside.test", "203.0.113.7")
	}
}

// captureLeft asks the kernel for how many seconds the rules count that an agent does not refresh.
func (l *namesLab) captureLeft() (seconds int) {
	l.t.Helper()
	for rest := l.exec("nft", "-j", "list", "set", "inet", "libnet-names", "alive"); ; {
		_, after, more := strings.Cut(rest, `"expires": `)
		if !more {
			return seconds
		}
		n, err := strconv.Atoi(after[:max(strings.IndexAny(after, ",} "), 0)])
		l.check(err)
		seconds, rest = max(seconds, n), after
	}
}

// An agent that hangs lets queries pass within 5 s: a client that asks again after its
// time-out gets its answer, also from the same port.
func TestNamesFailOpen(t *testing.T) {
	l := newNamesLab(t)
	l.startAgent()
	l.join("web", "front")
	l.captured()
	for _, network := range []string{"udp", "tcp"} {
		if got := l.answers(query{from: "web", name: "outside.test", network: network}); got != "203.0.113.7" {
			t.Fatalf("over %s: %s", network, got)
		}
	}
	l.check(l.agent.cmd.Process.Signal(unix.SIGSTOP))
	if left := l.captureLeft(); left > 5 {
		t.Errorf("the kernel keeps the capture for another %d s, want 5 s at most", left)
	}
	start := time.Now()
	l.in(netnsPath("web"), func() {
		c, err := net.Dial("udp", net.JoinHostPort(worldAddr(false).String(), "53"))
		l.check(err)
		defer func() { _ = c.Close() }()
		m := new(dns.Msg)
		m.SetQuestion("outside.test.", dns.TypeA)
		wire, err := m.Pack()
		l.check(err)
		buf := make([]byte, 512)
		for got := 0; got == 0; {
			_, err := c.Write(wire)
			l.check(err)
			_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			if got, _ = c.Read(buf); time.Since(start) > 30*time.Second {
				t.Fatal("no answer while the agent is stopped")
			}
		}
	})
	t.Logf("external names are back after %s", time.Since(start))
	l.await("TCP while the agent is stopped", func() bool { // its elements may live a moment longer
		return l.answers(query{from: "web", name: "outside.test", network: "tcp", patience: time.Second}) == "203.0.113.7"
	})
	l.join("late", "back") // a network that the agent has not heard of
	if got := l.answers(query{from: "late", name: "outside.test"}); got != "203.0.113.7" {
		t.Errorf("from a new network while the agent is stopped: %s", got)
	}
	l.check(l.agent.cmd.Process.Signal(unix.SIGCONT))
	l.await("names after SIGCONT", func() bool {
		return l.answers(query{from: "web", name: "web"}) == l.address("web", "front", false)
	})
}

// Whatever server resolv.conf names, the names of the network are answered from there.
func TestNamesByAnyServer(t *testing.T) {
	l := newNamesLab(t)
	for _, what := range []string{"bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"} {
		l.check(lntest.Sysctl(what, "1")) // or a server on the same bridge is not seen
	}
	l.startAgent()
	l.join("web", "front")
	l.join("db", "front", "back")
	l.captured()
	for what, server := range map[string]string{
		"a server outside": worldAddr(false).String(), "the same by IPv6": worldAddr(true).String(),
		"a dead server": "203.0.113.99", "the gateway": "10.70.1.1", "the gateway by IPv6": "fd70:1::1",
		"another container": l.address("db", "front", false), "itself by the host": "192.0.2.1",
	} {
		for _, network := range []string{"udp", "tcp"} {
			q := query{from: "web", server: server, name: "db", network: network}
			if got, want := l.answers(q), l.address("db", "front", false); got != want {
				t.Errorf("%s over %s: %s, want %s", what, network, got, want)
			}
		}
	}
	// Port 53 of host and containers is free.
	for _, where := range []string{"", netnsPath("web")} {
		l.in(where, func() {
			u, err := listenPacket(":53")
			l.check(err)
			s, err := listenTCP(":53")
			l.check(err)
			_, _ = u.Close(), s.Close()
		})
	}
}

// Clients as they are: glibc, musl, busybox, Go, dig; with a search list and many dots.
func TestNamesClients(t *testing.T) {
	l := newNamesLab(t)
	l.startAgent()
	l.join("web", "front")
	l.join("db", "front", "back")
	l.captured()
	l.resolvConf("search cluster.example svc.cluster.example", "nameserver "+worldAddr(false).String(), "options ndots:5")
	want := l.address("db", "front", false)
	for _, c := range [][]string{
		{"getent", "ahostsv4", "db"},
		{"getent", "ahostsv4", "db.libnet.internal"},
		{"getent", "hosts", want},
		{"busybox", "nslookup", "db.libnet.internal"},
		{"busybox", "nslookup", "db.libnet.internal."},
		{"dig", "+short", "db"},
		{"dig", "+short", "+tcp", "db"},
		{"dig", "+short", "+noedns", "DB.front"},
		{"dig", "+short", "+subnet=192.0.2.0/24", "+dnssec", "db"},
	} {
		if out, err := l.tool(c...); err != nil || !strings.Contains(out, want) {
			t.Errorf("%q: %v\n%s", c, err, out)
		}
	}
	if out, err := l.tool(l.musl(), "db"); err != nil || !strings.Contains(out, want) {
		t.Errorf("musl: %v\n%s", err, out)
	}
	if out, err := l.tool("dig", "+short", "-x", want); err != nil || strings.TrimSpace(out) != "db.libnet.internal." {
		t.Errorf("dig -x: %q %v", out, err)
	}
	// glibc asks for both families at once: without IPv6 the name is still known.
	if out, err := l.tool("getent", "ahosts", "db"); err != nil || !strings.Contains(out, want) {
		t.Errorf("getent ahosts: %v\n%s", err, out)
	}
	got, err := (&net.Resolver{PreferGo: true, Dial: l.dials("web")}).LookupNetIP(t.Context(), "ip4", "db")
	if err != nil || len(got) != 1 || got[0].Unmap().String() != want {
		t.Errorf("Go: %v %v", got, err)
	}
	if out, err := l.tool("getent", "ahostsv4", "outside.test"); err != nil || !strings.Contains(out, "203.0.113.7") {
		t.Errorf("an external name: %v\n%s", err, out)
	}
	if out, err := l.tool("dig", "+short", "+bufsize=512", "large.test"); err != nil || strings.Count(out, "203.0.113.") != 100 {
		t.Errorf("an external answer that needs TCP: %v\n%s", err, out)
	}
}

// All that a container is called, and nothing of what it is not.
func TestNamesOfContainers(t *testing.T) {
	l := newNamesLab(t)
	l.startAgent()
	l.join("web", "front")
	l.captured()
	add := func(cid, args, runtime, cni string) {
		l.t.Helper()
		l.netns(cid)
		conf := l.namesConf("front", nil)
		if runtime != "" {
			conf = strings.TrimSuffix(conf, "}") + `,"runtimeConfig":{"aliases":` + runtime + `}}`
		}
		if cni != "" {
			conf = strings.TrimSuffix(conf, "}") + `,"args":{"cni":{"names":` + cni + `}}}`
		}
		r := parseResult(t, l.must(call{plugin: "bridge-ln", command: "ADD", cid: cid, netns: netnsPath(cid), ifName: "eth0", args: args, stdin: conf}).stdout)
		l.at[cid+"/front"] = r.addresses(t)
	}
	add("aaaaaaaaaaaabbbb", "", `["api","Api","shared"]`, "")
	add("cccccccccccc", "", `{"front":["podman-alias","shared"],"other":["elsewhere"]}`, "")
	add("dddddddddddddddd", "IgnoreUnknown=1;K8S_POD_NAMESPACE=team;K8S_POD_NAME=pod-0", "", "")
	add("eeeeeeeeeeeeeeee", "IgnoreUnknown=1;NERDCTL_CNI_DHCP_HOSTNAME=ncontainer", "", `["chosen","two.words"]`)
	a, c := l.address("aaaaaaaaaaaabbbb", "front", false), l.address("cccccccccccc", "front", false)
	d, e := l.address("dddddddddddddddd", "front", false), l.address("eeeeeeeeeeeeeeee", "front", false)
	got := map[string]string{}
	want := map[string]string{
		"aaaaaaaaaaaa": a, "api": a, "aaaaaaaaaaaabbbb": "nxdomain", "shared": a + " " + c, "tasks.shared": a + " " + c,
		"podman-alias": c, "elsewhere": "nxdomain", "cccccccccccc": c, "pod-0": d, "pod-0.team": d, "team": "nxdomain",
		"pod-0.team.libnet.internal": d, "ncontainer": e, "chosen.front": e, "two.words": e, "words": "nxdomain",
		"gateway": "10.70.1.1", "host.libnet.internal": "10.70.1.1",
	}
	for name := range want {
		got[name] = l.answers(query{from: "web", name: name})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("(-want +got)\n" + diff)
	}
	// Many under one name: truncated over UDP, whole over TCP.
	for i := range 40 {
		add(fmt.Sprintf("m%011d", i), "", `["many"]`, "")
	}
	m, err := l.ask(query{from: "web", name: "many"})
	if err != nil || !m.Truncated {
		t.Errorf("over UDP: %v %v", m, err)
	}
	m, err = l.ask(query{from: "web", name: "many", network: "tcp"})
	if err != nil || m.Truncated || len(m.Answer) != 40 {
		t.Errorf("over TCP: %v %v", m, err)
	}
	// A name that cannot be one is refused.
	r := l.run(call{plugin: "bridge-ln", command: "ADD", cid: "ffff", netns: netnsPath("web"), ifName: "eth9", args: "NAME=a b", stdin: l.namesConf("front", nil)})
	if r.code != 7 || !strings.Contains(r.msg, `CNI_ARGS NAME`) || !strings.Contains(r.msg, `"a b"`) {
		t.Errorf("a bad name: %d %s", r.code, r.msg)
	}
	for _, names := range []any{1, "yes", map[string]any{"domain": "-.-..x"}, map[string]any{"domain": 5}} {
		r := l.run(call{plugin: "bridge-ln", command: "ADD", cid: "ffff", netns: netnsPath("web"), ifName: "eth9", stdin: l.namesConf("front", map[string]any{"names": names})})
		if r.code != 7 || !strings.Contains(r.msg, "names") {
			t.Errorf("names: %v: %d %s", names, r.code, r.msg)
		}
	}
}

// A right to make pods in one namespace gives no name of the cluster or of the world, and no
// name that Kubernetes allows keeps a pod from its network.
func TestNamesOfPods(t *testing.T) {
	l := newNamesLab(t)
	l.startAgent()
	l.join("web", "front")
	l.captured()
	const foreign = "outside.test"
	before := l.answers(query{from: "web", name: foreign})
	for cid, pod := range map[string]string{"p1": foreign, "p2": strings.Repeat("p", 70), "p3": strings.Repeat("pod.", 60) + "pod"} {
		l.netns(cid)
		c := call{plugin: "bridge-ln", command: "ADD", cid: cid, netns: netnsPath(cid), ifName: "eth0", stdin: l.namesConf("front", nil)}
		c.args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=evil;K8S_POD_NAME=" + pod
		l.at[cid+"/front"] = parseResult(t, l.must(c).stdout).addresses(t)
	}
	pod := l.address("p1", "front", false)
	for name, want := range map[string]string{foreign: before, foreign + ".evil": "nxdomain", foreign + ".libnet.internal": pod, foreign + ".evil.libnet.internal": pod} {
		if got := l.answers(query{from: "web", name: name}); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// A repeated ADD with other names renames the container.
func TestNamesRename(t *testing.T) {
	l := newNamesLab(t)
	l.startAgent()
	l.join("web", "front")
	l.captured()
	l.rename()
}

// rename repeats the ADD of a container with another name.
func (l *namesLab) rename() {
	l.t.Helper()
	again := l.call("web", "front", 0)
	again.args = "NAME=shop"
	l.must(again.as("ADD"))
	if got, want := l.answers(query{from: "web", name: "shop"}), l.address("web", "front", false); got != want {
		l.t.Errorf("the new name: %s, want %s", got, want)
	}
	if got := l.answers(query{from: "web", name: "web"}); got != "nxdomain" {
		l.t.Errorf("the old name: %s", got)
	}
}

// Names of a network resolve at once when a running container is added to it, and are gone
// at once when it is taken off.
func TestNamesConnect(t *testing.T) {
	l := newNamesLab(t)
	l.startAgent()
	l.join("web", "front")
	l.join("lone", "back")
	l.captured()
	at := l.address("lone", "back", false)
	for range 10 {
		if got := l.answers(query{from: "web", name: "lone"}); got != "nxdomain" {
			t.Fatalf("before it is connected: %s", got)
		}
		second := l.call("web", "back", 1)
		l.must(second.as("ADD"))
		if got := l.answers(query{from: "web", name: "lone"}); got != at {
			t.Errorf("connected: %s, want %s", got, at)
		}
		if got := l.answers(query{from: "lone", name: "web.back"}); got == "nxdomain" || got == "-" {
			t.Errorf("connected, from the other side: %s", got)
		}
		l.must(second.as("DEL"))
		if got := l.answers(query{from: "lone", name: "web.back.test"}); got != "nxdomain" {
			t.Errorf("disconnected, from the other side: %s", got)
		}
	}
}

// A container that asks without end has its answers up to the limit; the rest passes, and
// others are not concerned. The agent counts, logs on request, and tells of its health.
func TestNamesWatched(t *testing.T) {
	l := newNamesLab(t)
	l.startAgent("--listen", "127.0.0.1:9468", "--names-limit", "20", "--log-queries")
	a := &agents{cluster: &cluster{host: l.host}}
	l.await("health", func() bool { body, code := a.getHere("/healthz"); return code == 200 && body == "ok\n" })
	l.join("web", "front")
	l.join("db", "front")
	for i := range 15 {
		if got, want := l.answers(query{from: "db", name: "web"}), l.address("web", "front", false); got != want {
			t.Errorf("query %d: %s, want %s", i, got, want)
		}
	}
	for _, q := range []query{
		{from: "db", name: "web", network: "tcp"}, {from: "db", name: "no.libnet.internal"}, {from: "db", name: "outside.test"},
		{from: "db", name: "outside.test", network: "tcp"}, {from: "db", name: "web", qtype: dns.TypeMX},
	} {
		_, err := l.ask(q)
		l.check(err)
	}
	body, _ := a.getHere("/metrics")
	for labels, want := range map[string]float64{
		`transport="udp",outcome="answered"`: 15, `transport="tcp",outcome="answered"`: 1, `transport="udp",outcome="nxdomain"`: 1,
		`transport="udp",outcome="foreign"`: 1, `transport="tcp",outcome="foreign"`: 1, `transport="udp",outcome="nodata"`: 1,
	} {
		parts := strings.Split(labels, ",")
		name := "libnet_names_queries_total{" + parts[1] + "," + parts[0] + "}" // Prometheus sorts them
		if got := metric(body, name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if metric(body, "libnet_names_endpoints") != 2 || metric(body, "libnet_names_ok") != 1 {
		t.Errorf("metrics:\n%s", body)
	}
	if line := "name=outside.test. type=A outcome=foreign"; strings.Count(l.agent.log.String(), line) != 2 {
		t.Errorf("the log has not two times %q:\n%s", line, l.agent.log)
	}
	answered := 0
	for range 300 {
		if l.answers(query{from: "web", name: "web"}) != "nxdomain" { // which the server outside says
			answered++
		}
	}
	if answered < 20 || answered > 200 {
		t.Errorf("%d of 300 queries at once were answered, with a limit of 20 per second", answered)
	}
	if got, want := l.answers(query{from: "db", name: "web"}), l.address("web", "front", false); got != want {
		t.Errorf("another container after the flood: %s, want %s", got, want)
	}
}

// musl builds a program that asks for both families with musl's getaddrinfo.
func (l *namesLab) musl() string {
	l.t.Helper()
	const source = `#include <netdb.h>
#include <stdio.h>
#include <arpa/inet.h>
int main(int n, char **arg) {
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *a;
	int err = getaddrinfo(arg[1], 0, &hints, &a);
	if (err) { puts(gai_strerror(err)); return 1; }
	for (; a; a = a->ai_next) {
		char text[64];
		void *at = a->ai_family == AF_INET ? (void *)&((struct sockaddr_in *)a->ai_addr)->sin_addr : (void *)&((struct sockaddr_in6 *)a->ai_addr)->sin6_addr;
		puts(inet_ntop(a->ai_family, at, text, sizeof text));
	}
}`
	program := filepath.Join(l.t.TempDir(), "ask")
	cmd := exec.Command("musl-gcc", "-static", "-o", program, "-x", "c", "-")
	cmd.Stdin = strings.NewReader(source)
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("musl-gcc: %v\n%s", err, out)
	}
	return program
}

// dials has Go's resolver ask from a container. It dials on goroutines of its own, which
// are elsewhere, so there are sockets for all its questions.
func (l *namesLab) dials(name string) func(ctx context.Context, network, _ string) (net.Conn, error) {
	l.t.Helper()
	ready := make(chan net.Conn, 20)
	l.in(netnsPath(name), func() {
		for range cap(ready) {
			c, err := net.Dial("udp", net.JoinHostPort(worldAddr(false).String(), "53"))
			l.check(err)
			l.t.Cleanup(func() { _ = c.Close() })
			ready <- c
		}
	})
	return func(context.Context, string, string) (net.Conn, error) { return <-ready, nil }
}

// lnctl lists the names, and asks as a container does, through the agent.
func TestNamesByLnctl(t *testing.T) {
	l := newNamesLab(t)
	program(t, "lnctl")
	lnctl := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(program(t, "lnctl"), append([]string{"names"}, args...)...).CombinedOutput()
		return fmt.Sprint(strings.Join(strings.Fields(string(out)), " "), map[bool]string{true: "", false: " FAILED"}[err == nil])
	}
	if got := lnctl(); got != "NETWORK NAMES ADDRESSES DOMAIN CONTAINER" {
		t.Errorf("without containers: %s", got)
	}
	l.startAgent()
	l.join("web", "front")
	l.join("db", "front", "back")
	l.join("lone", "back")
	l.captured()
	web, db := l.address("web", "front", false), l.address("db", "front", false)
	for args, want := range map[string]string{
		"list": "NETWORK NAMES ADDRESSES DOMAIN CONTAINER" +
			" back db,db-012345678 " + l.address("db", "back", false) + " back.test db-0123456789abcdef" +
			" back lone,lone-0123456 " + l.address("lone", "back", false) + " back.test lone-0123456789abcdef" +
			" front db,db-012345678 " + db + "," + l.address("db", "front", true) + " libnet.internal db-0123456789abcdef" +
			" front web,web-01234567 " + web + "," + l.address("web", "front", true) + " libnet.internal web-0123456789abcdef",
		"resolve --as web db":           db + " " + l.address("db", "front", true),
		"resolve --as web-0123 db.back": "lnctl: as web-0123 (web-0123456789abcdef), asking 10.70.1.1: lookup db.back.: ", // and more
		"resolve --as web " + web:       "web.libnet.internal.",
		"resolve --as lone web":         "lnctl: as lone",
		"resolve --as nothing web":      `lnctl: --as "nothing": there is no such container; lnctl names list has those with names FAILED`,
		"resolve web":                   "lnctl: --as: want the container that asks, by its ID or a name of it FAILED",
		"resolve --as web":              "lnctl: want one NAME or ADDRESS; see lnctl names resolve --help FAILED",
		"resolve --as web --server x y": `lnctl: --server "x": want an address FAILED`,
	} {
		if got := lnctl(strings.Fields(args)...); got != want && (!strings.HasPrefix(got, want) || !strings.HasSuffix(got, "FAILED")) {
			t.Errorf("lnctl names %s:\n got %s\nwant %s", args, got, want)
		}
	}
}
