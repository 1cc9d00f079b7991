package integration

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// listen has a container accept connections at port 9000, which is checked, until stop.
func (m *meshLab) listen(name string) (stop func()) {
	return m.accept(name, ":9000", func(c net.Conn) { _ = c.Close() })
}

// accept has a container do something with each connection to an address of its own, until stop.
func (m *meshLab) accept(name, addr string, do func(net.Conn)) (stop func()) {
	m.t.Helper()
	var l net.Listener
	m.in(netnsPath(name), func() {
		var err error
		l, err = listenTCP(addr)
		m.check(err)
	})
	stop = func() { _ = l.Close() }
	m.t.Cleanup(stop)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go do(c)
		}
	}()
	return stop
}

// Containers get connections, of clients on all hosts, while they accept those of the check; a new
// one gets none before. If the check fails for all of them they get connections all the same, and
// the agent says so. What a new agent finds stays, and is not begun anew.
func TestMeshCheck(t *testing.T) {
	t.Parallel()
	m := newMeshOutside(t, 3)
	stops := map[string]func(){}
	for name, host := range map[string]string{"b1": "h1", "b2": "h2", "b3": "h3"} {
		m.add(host, name, "web")
		stops[name] = m.listen(name)
	}
	m.add("h1", "near", "client")
	m.add("h2", "far", "client")
	v4, _ := m.create("h1", "--check", "tcp:9000,interval=1s", "--publish", "8080:80")
	led := func(event string, want ...string) {
		t.Helper()
		m.become(event, "near", v4, want...)
		m.become(event, "far", v4, want...)
	}
	for _, h := range m.hosts {
		m.awaitAgent(h, "/metrics", "all are checked", func(body string, _ int) bool {
			return metric(body, `libnet_service_backends{network="net0",service="web",state="ready"}`) == 3
		})
	}
	led("all are well", "b1", "b2", "b3")
	stops["b2"]()
	led("b2 does not accept", "b1", "b3")
	m.awaitAgent("h3", "/metrics", "a failing container", func(body string, _ int) bool {
		return metric(body, `libnet_service_backends{network="net0",service="web",state="failing"}`) == 1 && metric(body, `libnet_service_backends{network="net0",service="web",state="ready"}`) == 2
	})
	if out := m.lnctl("h3", "service", "inspect", "web", "--network", "net0"); strings.Count(out, "check fails") != 1 || !strings.Contains(out, "tcp:9000,interval=1s") {
		t.Errorf("inspect:\n%s", out)
	}

	// The record of b3 stays. Counters tell: a client that uses a port again within ten seconds
	// after a reset is on its former connection, to conntrack.
	counts := func() map[string]int {
		all, _ := countsOf(t, m.lnctl("h1", "-o", "json", "service", "inspect", "web", "--network", "net0"))
		return all
	}
	before := counts()
	m.procs["h3"].kill(t)
	m.start("h3")
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		first := counts()
		m.asks("near", v4, 64)
		if now := counts(); now["b1"] == first["b1"] || now["b3"] == first["b3"] {
			t.Fatalf("a new agent on h3: %v, and after 64 connections %v", first, now)
		}
	}
	if now := counts(); now["b2"] != before["b2"] {
		t.Errorf("a new agent on h3: new connections are led to b2: %v, and before %v", now, before)
	}
	led("a new agent on h3", "b1", "b3")

	m.add("h2", "b4", "web") // it answers, and is not checked successfully yet
	led("b4 does not accept", "b1", "b3")
	stops["b4"] = m.listen("b4")
	led("b4 accepts", "b1", "b3", "b4")
	m.lnctl("h2", "service", "drain", "web", "b4", "--network", "net0")
	led("b4 is drained", "b1", "b3")
	stops["b1"]()
	led("b1 does not accept", "b3")
	stops["b3"]()
	led("none accepts", "b1", "b2", "b3")
	for _, h := range m.hosts {
		m.awaitHealth(h, "fails for all containers; they get connections all the same")
	}
	stops["b2"] = m.listen("b2")
	led("b2 accepts again", "b2")
	for _, h := range m.hosts {
		m.awaitHealth(h, "ok")
	}
	m.lnctl("h1", "service", "update", "web", "--network", "net0", "--external", "local")
	if !lntest.Await(agentPatience, func() bool { return strings.Contains(m.on().ask("", "tcp", m.uplink("h1", false), 8080), "refused") }) {
		t.Errorf("local, the only container fails: %q", m.on().ask("", "tcp", m.uplink("h1", false), 8080))
	}
	m.lnctl("h3", "service", "update", "web", "--network", "net0", "--check", "none")
	led("no check", "b1", "b2", "b3")
	for _, bad := range []string{"http", "tcp:0", "tcp:80,interval=1ms"} {
		if out, err := m.tryLnctl("h1", "service", "update", "web", "--network", "net0", "--check", bad); err == nil || !strings.Contains(out, "want tcp, tcp:PORT") {
			t.Errorf("--check %s: %v %s", bad, err, out)
		}
	}
}
