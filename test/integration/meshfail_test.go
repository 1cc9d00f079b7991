package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// attempts are connections of a client to a service, by when they began.
type attempts struct {
	mu     sync.Mutex
	failed []time.Time
	last   error
	ok     int
}

// try opens connections out of a container, so many a second, until stop.
func (m *meshLab) try(from, to string, perSecond int, stop <-chan struct{}) (done func() *attempts) {
	m.t.Helper()
	const workers, patience = 16, 500 * time.Millisecond
	a := &attempts{}
	var wg sync.WaitGroup
	m.on().start(&wg, from, workers, func(int) {
		for tick := time.NewTicker(workers * time.Second / time.Duration(perSecond)); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
			}
			start := time.Now()
			c, err := net.DialTimeout("tcp", net.JoinHostPort(to, "80"), patience)
			if err == nil {
				_, err = lntest.Exchange(c, "?", patience)
				_ = c.Close()
			}
			a.mu.Lock()
			if err == nil {
				a.ok++
			} else {
				a.failed, a.last = append(a.failed, start), err
			}
			a.mu.Unlock()
		}
	})
	return func() *attempts { wg.Wait(); return a }
}

// datagramsTo is a socket of a container whose datagrams to a service are led to another one.
func (m *meshLab) datagramsTo(from, to, want string) (c net.Conn) {
	m.t.Helper()
	m.in(netnsPath(from), func() {
		for range 100 {
			var err error
			c, err = net.Dial("udp", net.JoinHostPort(to, "80"))
			m.check(err)
			if said, _ := lntest.Exchange(c, "?", time.Second); strings.HasPrefix(said, want+" ") {
				m.t.Cleanup(func() { _ = c.Close() })
				return
			}
			_ = c.Close()
		}
		m.t.Fatalf("no datagram is led to %s", want)
	})
	return c
}

// A host is cut off: connections to its containers fail until its lease ends, and not longer.
func TestMeshHostKilled(t *testing.T) {
	t.Parallel()
	const live = 5 * time.Second
	m := newMeshLab(t, 3, "--live-ttl", live.String())
	v4, _ := m.create("h1")
	m.add("h1", "near", "client")
	m.add("h2", "b2", "web")
	m.add("h3", "b3", "web")
	m.become("at first", "near", v4, "b2", "b3")
	pinned := m.datagramsTo("near", v4, "b2")
	stop := make(chan struct{})
	done := m.try("near", v4, 200, stop)
	time.Sleep(time.Second)
	link, err := netlink.LinkByName("to-h2")
	m.check(err)
	killed := time.Now()
	m.check(netlink.LinkSetDown(link))
	m.procs["h2"].kill(t)
	m.become("h2 is dead", "near", v4, "b3")
	said := ""
	if !lntest.Await(agentPatience, func() bool {
		said, _ = lntest.Exchange(pinned, "?", time.Second)
		return strings.HasPrefix(said, "b3 ")
	}) {
		t.Errorf("datagrams of a socket that was led to b2: %q, want an answer of b3", said)
	}
	time.Sleep(2 * time.Second) // of requests that are not to fail
	close(stop)
	a := done()
	if a.ok == 0 || len(a.failed) == 0 {
		t.Fatalf("%d requests succeeded, %d failed", a.ok, len(a.failed))
	}
	first, last := a.failed[0].Sub(killed), time.Duration(0)
	for _, at := range a.failed {
		first, last = min(first, at.Sub(killed)), max(last, at.Sub(killed))
	}
	t.Logf("live lease %s: of %d requests %d failed, from %s to %s after the host was cut off", live, a.ok+len(a.failed), len(a.failed), first.Round(time.Millisecond), last.Round(time.Millisecond))
	if first < -time.Second || last > live+5*time.Second {
		t.Errorf("requests failed from %s to %s after the host was cut off, want within its live lease of %s", first, last, live)
	}
}

// An agent is killed: traffic flows as before, from this host and to it. What is changed
// meanwhile on another host it has after its restart.
func TestMeshAgentKilled(t *testing.T) {
	t.Parallel()
	m := newMeshLab(t, 2)
	v4, _ := m.create("h1")
	m.add("h1", "near", "client")
	m.add("h2", "far", "client")
	m.add("h1", "b1", "web")
	m.add("h2", "b2", "web")
	for _, from := range []string{"near", "far"} {
		m.become("at first", from, v4, "b1", "b2")
	}
	stop := make(chan struct{})
	var waits []func() *attempts
	for _, from := range []string{"near", "far"} {
		waits = append(waits, m.try(from, v4, 100, stop))
	}
	m.procs["h1"].kill(t)
	time.Sleep(500 * time.Millisecond)
	m.start("h1")
	m.awaitPeers("h1", 1)
	m.procs["h1"].kill(t)
	m.lnctl("h2", "service", "drain", "web", "b2", "--network", "net0")
	m.become("drained on h2, without the agent of h1", "far", v4, "b1")
	if got := m.asks("near", v4, 40); got["b2"] == 0 {
		t.Errorf("h1 follows without its agent: %v", got)
	}
	if out, err := m.tryLnctl("h1", "service", "drain", "web", "b1", "--network", "net0"); err == nil || !strings.Contains(out, "ln-agent") {
		t.Errorf("drain without an agent: %v, %s", err, out)
	}
	m.start("h1")
	m.become("after the restart", "near", v4, "b1")
	for _, h := range []string{"h2", "h1"} {
		m.procs[h].kill(t)
	}
	close(stop)
	for _, wait := range waits {
		if a := wait(); len(a.failed) > 0 {
			t.Errorf("of %d requests %d failed, as: %v", a.ok+len(a.failed), len(a.failed), a.last)
		}
	}
	m.start("h2")
	m.awaitPeers("h2", 1)
	m.lnctl("h2", "service", "drain", "web", "b2", "--network", "net0", "--undo")
	m.become("not drained, without the agent of h1", "far", v4, "b1", "b2")
	m.add("h1", "new", "web") // its own host has it by ADD
	m.become("ADD without an agent", "near", v4, "b1", "new")
	m.start("h1")
	m.become("after the restart", "near", v4, "b1", "b2", "new")
	m.become("after the restart", "far", v4, "b1", "b2", "new")
	m.procs["h2"].kill(t)
	m.lnctl("h1", "service", "rm", "web", "--network", "net0")
	m.start("h2")
	for _, h := range m.hosts {
		m.awaitNoService(h)
	}
}

// The agent puts back rules and elements that are gone, and so does `lnctl repair` all the rest.
func TestMeshHeals(t *testing.T) {
	t.Parallel()
	m := newMeshLab(t, 2)
	v4, _ := m.create("h1")
	m.add("h1", "near", "client")
	m.add("h2", "b2", "web")
	m.become("at first", "near", v4, "b2")
	m.in(netnsPath("h1"), func() { m.exec("nft", "flush", "ruleset") })
	m.become("flushed", "near", v4, "b2")
	for _, damage := range []string{"delete table inet libnet-services", "flush chain inet libnet-services services", "flush map inet libnet-services spread4", "delete table bridge libnet-services"} {
		start := time.Now()
		m.in(netnsPath("h1"), func() { m.exec("nft", strings.Fields(damage)...) })
		m.become(damage, "near", v4, "b2")
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("%s: mended after %s, as by the look once a minute", damage, took)
		}
	}
	m.procs["h1"].kill(t) // else it mends what doctor is to find
	for name, damage := range map[string]string{
		"buckets":     "nft flush map inet libnet-services spread4",
		"the address": "ip addr del " + v4 + "/32 dev lo",
		"a chain":     "nft flush chain inet libnet-services services",
		"a stray":     "nft add element inet libnet-services self4 '{ 10.80.0.77 . 10.80.0.77 }'",
	} {
		out := ""
		found := func() bool {
			m.in(netnsPath("h1"), func() { m.exec("/bin/sh", "-c", damage) })
			said, err := m.tryLnctl("h1", "doctor")
			out = said
			return err != nil && strings.Contains(out, "service")
		}
		if !lntest.Await(agentPatience, found) {
			t.Errorf("%s: doctor says nothing: %s", name, out)
		}
		m.lnctl("h1", "repair")
		m.become(name, "near", v4, "b2")
		if out, err := m.tryLnctl("h1", "doctor"); err != nil && strings.Contains(out, "lnctl repair") {
			t.Errorf("%s repaired: %s", name, out)
		}
	}
}

// The containers of a host that is evicted, or leaves, go from all services, and come back with
// it. On itself nothing is left after `leave`; with the last host the service ends.
func TestMeshHostLeaves(t *testing.T) {
	t.Parallel()
	m := newMeshLab(t, 3)
	v4, _ := m.create("h1", "--publish", "8080:80/tcp")
	m.add("h1", "near", "client")
	m.add("h1", "b1", "web")
	m.add("h2", "b2", "web")
	m.add("h3", "b3", "web")
	m.become("at first", "near", v4, "b1", "b2", "b3")
	m.lnctl("h1", "overlay", "evict", "h2")
	m.become("h2 is evicted", "near", v4, "b1", "b3")
	m.become("h2 is evicted", "h2", v4, "b2")
	m.lnctl("h1", "overlay", "admit", "h2")
	m.become("h2 is admitted", "near", v4, "b1", "b2", "b3")
	m.become("h2 is admitted", "h2", v4, "b1", "b2", "b3")
	m.procs["h3"].stop(t)
	m.in(netnsPath("h3"), func() {
		if out, err := m.agentCommand("h3", "leave", "--force").CombinedOutput(); err != nil {
			t.Fatalf("leave: %v: %s", err, out)
		}
	})
	m.become("h3 has left", "near", v4, "b1", "b2")
	if out := m.lnctl("h3", "service", "ls") + m.lnctl("h3", "port", "ls"); strings.Contains(out, "web") || strings.Contains(out, "8080") {
		t.Errorf("h3 has left, and has:\n%s", out)
	}
	for _, h := range []string{"h1", "h2"} {
		m.procs[h].stop(t)
		m.in(netnsPath(h), func() {
			if out, err := m.agentCommand(h, "leave", "--force").CombinedOutput(); err != nil {
				t.Fatalf("leave: %v: %s", err, out)
			}
		})
	}
	if left := m.etcdctl("get", "--prefix", "--keys-only", "/"); strings.TrimSpace(left) != "" {
		t.Errorf("etcd holds:\n%s", left)
	}
}

// Every container of a service is replaced by one on another host, under load from all hosts, and no
// request fails. What the hosts remove themselves meanwhile no agent takes for lost.
func TestMeshRollingReplacement(t *testing.T) {
	t.Parallel()
	m := newMeshLab(t, 3)
	const backends, perSecond = 5, 1500 // from each host
	host := func(i int) string { return m.hosts[i%len(m.hosts)] }
	for i := range m.hosts {
		m.add(host(i), fmt.Sprint("client", i), "client")
	}
	var old []string
	for i := range backends {
		old = append(old, fmt.Sprint("old", i))
		m.add(host(i), old[i], "web")
	}
	v4, _ := m.create("h1", "--start-drained")
	for i := range backends {
		m.lnctl(host(i), "service", "drain", "web", old[i], "--network", "net0", "--undo")
	}
	for i := range m.hosts {
		m.become("at first", fmt.Sprint("client", i), v4, old...)
	}
	stop := make(chan struct{})
	start := time.Now()
	var waits []func() (map[string]int, []string)
	for i := range m.hosts {
		waits = append(waits, m.on().load(fmt.Sprint("client", i), net.JoinHostPort(v4, "80"), perSecond, stop))
	}
	for i := range backends {
		m.add(host(i+1), fmt.Sprint("new", i), "web") // it listens after ADD
		m.lnctl(host(i+1), "service", "drain", "web", fmt.Sprint("new", i), "--network", "net0", "--undo")
		m.lnctl(host(i+2), "service", "drain", "web", old[i], "--network", "net0")
		m.awaitIdle(old[i])
		m.del(old[i])
	}
	close(stop)
	answers, total, took := map[string]int{}, 0, time.Since(start)
	for _, wait := range waits {
		got, failed := wait()
		for name, n := range got {
			answers[name] += n
			total += n
		}
		if len(failed) > 0 {
			t.Errorf("%d requests failed, as: %s", len(failed), strings.Join(failed[:min(3, len(failed))], "; "))
		}
	}
	t.Logf("%d requests in %v, %.0f a second, by container %v", total, took.Round(time.Millisecond), float64(total)/took.Seconds(), answers)
	for i := range backends {
		if answers[fmt.Sprint("new", i)] == 0 {
			t.Errorf("new%d has had no request", i)
		}
	}
	for h, p := range m.procs {
		if log := p.log.String(); strings.Contains(log, "rules of services were gone") {
			t.Errorf("%s put rules back that only we removed:\n%s", h, log)
		}
	}
}

// awaitIdle waits until no host leads a new connection to a container that is drained, and the last
// one that it got has ended: a command returns when its own host has followed, and a program needs
// time for its last requests.
func (m *meshLab) awaitIdle(name string) {
	m.t.Helper()
	addr, start := m.own(name, false).String(), time.Now()
	for _, h := range m.hosts {
		m.in(netnsPath(h), func() {
			if !lntest.Await(agentPatience, func() bool {
				return !strings.Contains(m.exec("nft", "list", "map", "inet", "libnet-services", "spread4"), " : "+addr+" . ")
			}) {
				m.t.Fatalf("%s leads to %s, which is drained", h, name)
			}
		})
	}
	followed := time.Since(start)
	for _, h := range m.hosts {
		m.in(netnsPath(h), func() {
			var open string
			if !lntest.Await(agentPatience, func() bool { open = m.unfinished(addr); return open == "" }) {
				m.t.Fatalf("connections of %s to %s, which is drained, do not end: %s", h, name, open)
			}
		})
	}
	m.t.Logf("%s: all hosts had followed after %s, and the last connection had ended after %s", name, followed.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
}

// unfinished is one of the connections of TCP to an address that conntrack of the thread's namespace
// has, and that have not ended.
func (m *meshLab) unfinished(addr string) string {
	m.t.Helper()
	data, err := os.ReadFile("/proc/thread-self/net/nf_conntrack")
	m.check(err)
	for line := range strings.Lines(string(data)) {
		live := strings.Contains(line, " SYN_SENT ") || strings.Contains(line, " SYN_RECV ") || strings.Contains(line, " ESTABLISHED ")
		if live && strings.Contains(line, " src="+addr+" ") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// Services are made, changed and removed on one host while containers come and go on another one,
// a third one drains them, and an agent is killed and started. Then all hosts agree.
func TestMeshActors(t *testing.T) {
	t.Parallel()
	m := newMeshLab(t, 3)
	m.add("h1", "near", "client")
	m.add("h3", "far", "client")
	m.add("h2", "stays", "web")
	b2 := m.add("h2", "b2", "web")
	for round := range 6 {
		v4, _ := m.create(m.hosts[round%3])
		var waits []func() string
		for _, does := range []struct{ host, script string }{
			{"h2", "for i in 1 2 3; do " + m.script(b2.call.as("DEL")) + "; " + m.script(b2.call.as("ADD")) + "; done"},
			{"h3", m.loop("h3", "service drain web b2 --network net0")}, // b2 may be away
			{"h1", m.loop("h1", "service update web --network net0 --port 80:8080/tcp")},
			{"h3", "test " + fmt.Sprint(round%2) + " = 0 || " + m.loop("h3", "service rm web --network net0")},
		} {
			waits = append(waits, m.begin(does.host, does.script))
		}
		if round == 4 {
			m.procs["h3"].kill(t)
			m.start("h3")
			m.awaitPeers("h3", 2)
		}
		said := ""
		for _, wait := range waits {
			said += wait()
		}
		if round%2 == 0 {
			m.lnctl("h2", "service", "update", "web", "--network", "net0", "--weight", "b2=1")
			for _, from := range []string{"near", "far"} {
				m.become(fmt.Sprint("round ", round, " ", said), from, v4, "b2", "stays")
			}
			for _, h := range m.hosts {
				if out, err := m.tryLnctl(h, "doctor"); err != nil && strings.Contains(out, "service") {
					t.Errorf("round %d: doctor on %s: %s", round, h, out)
				}
			}
			m.lnctl("h1", "service", "rm", "web", "--network", "net0")
		}
		for _, h := range m.hosts {
			m.awaitNoService(h)
		}
	}
}

// script is a call of a plugin for a shell.
func (m *meshLab) script(c call) string {
	file := fmt.Sprintf("/run/%s-%s.conf", c.cid, c.command)
	m.check(os.WriteFile(file, []byte(c.stdin), 0o600))
	return fmt.Sprintf("env %s %s <%s >/dev/null", strings.Join(c.environ(m.t), " "), program(m.t, c.plugin), file)
}

// loop is lnctl on a host for a shell, three times.
func (m *meshLab) loop(host, args string) string {
	return fmt.Sprintf("for i in 1 2 3; do %s --state-dir /run/libnet-%s %s; done 2>&1", program(m.t, "lnctl"), host, args)
}

// begin runs a script on a host beside the test. wait returns what it prints.
func (m *meshLab) begin(host, script string) (wait func() string) {
	m.t.Helper()
	var out strings.Builder
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Stdout = &out
	m.in(netnsPath(host), func() { m.check(cmd.Start()) })
	return func() string { _ = cmd.Wait(); return out.String() }
}

// An agent is killed at a moment before, in or after what it makes of a change on another host. The
// kernel has all of the change or nothing of it, by both families, and after a restart all.
func TestMeshKillMatrix(t *testing.T) {
	t.Parallel()
	m := newMeshLab(t, 2)
	v4, _ := m.create("h2")
	m.add("h1", "near", "client")
	m.add("h1", "b1", "web")
	m.add("h2", "b2", "web")
	m.add("h2", "b3", "web")
	m.become("at first", "near", v4, "b1", "b2", "b3")
	const kills, step = 24, 1500 * time.Microsecond
	states := map[bool]string{}
	drain := map[bool]string{true: "", false: " --undo"}
	for _, drained := range []bool{true, false} {
		m.lnctl("h1", strings.Fields("service drain web b2 --network net0"+drain[drained])...)
		states[drained] = m.buckets()
	}
	if states[true] == states[false] {
		t.Fatal("a drained container changes nothing")
	}
	before, after := 0, 0
	for i := range kills {
		drained := i%2 == 0
		wait := m.begin("h2", fmt.Sprintf("%s --state-dir /run/libnet-h2 service drain web b2 --network net0%s", program(t, "lnctl"), drain[drained]))
		time.Sleep(time.Duration(i) * step)
		m.procs["h1"].kill(t)
		if said := wait(); said != "" {
			t.Errorf("drain: %s", said)
		}
		switch now := m.buckets(); now {
		case states[!drained]:
			before++
		case states[drained]:
			after++
		default:
			t.Errorf("killed %s after the change began, h1 has\n%s\nwant one of\n%s\n%s", time.Duration(i)*step, now, states[false], states[true])
		}
		m.start("h1")
		if !lntest.Await(agentPatience, func() bool { return m.buckets() == states[drained] }) {
			t.Errorf("killed %s after the change began, and restarted, h1 has\n%s\nwant\n%s", time.Duration(i)*step, m.buckets(), states[drained])
		}
	}
	t.Logf("of %d agents that were killed %d had done nothing of the change, %d all of it", kills, before, after)
}

// buckets are what leads to containers in the kernel of h1.
func (m *meshLab) buckets() string {
	m.t.Helper()
	var all []string
	m.in(netnsPath("h1"), func() {
		for _, name := range []string{"spread4", "rest4", "spread6", "rest6"} {
			out := m.exec("nft", "list", "map", "inet", "libnet-services", name)
			_, elements, _ := strings.Cut(out, "elements = {")
			lines := strings.FieldsFunc(elements, func(r rune) bool { return r == ',' || r == '\n' || r == '}' })
			for i := range lines {
				lines[i] = name + " " + strings.TrimSpace(lines[i])
			}
			all = append(all, lines...)
		}
	})
	slices.Sort(all)
	return strings.Join(slices.Compact(all), "\n")
}

// A host loses all that it has of services, as by a reboot, and its agent puts it back from etcd. What
// was removed meanwhile goes.
func TestMeshStateLost(t *testing.T) {
	t.Parallel()
	m := newMeshLab(t, 2)
	m.add("h1", "near", "client")
	m.add("h1", "b1", "web")
	m.add("h2", "b2", "web")
	v4, _ := m.create("h1", "--publish", "8080:80/tcp")
	gone, _, _ := strings.Cut(m.lnctl("h1", "service", "create", "gone", "--network", "net0", "--select", "alias=web", "--port", "80:8080"), ",")
	m.become("at first", "near", v4, "b1", "b2")
	m.procs["h1"].kill(t)
	m.lnctl("h2", "service", "rm", "gone", "--network", "net0")
	m.check(os.RemoveAll("/run/libnet-h1/services/net0/web/web"))
	m.in(netnsPath("h1"), func() {
		m.exec("nft", "delete", "table", "inet", "libnet-services")
		m.exec("ip", "addr", "del", v4+"/32", "dev", "lo")
	})
	m.start("h1")
	m.become("after the restart", "near", v4, "b1", "b2")
	if !lntest.Await(agentPatience, func() bool { return !strings.Contains(m.lnctl("h1", "service", "ls"), "gone") }) {
		t.Error("a service that was removed meanwhile is there")
	}
	if got := m.on().ask("near", "tcp", gone, 80); !strings.HasPrefix(got, "error") {
		t.Errorf("a service that was removed meanwhile: %q", got)
	}
	if out, err := m.tryLnctl("h1", "doctor"); err != nil && strings.Contains(out, "lnctl repair") {
		t.Errorf("doctor: %s", out)
	}
}
