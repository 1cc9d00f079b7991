package integration

import (
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// A client outside is seen by a container on another host than the one that it asked, whatever the
// hosts filter, and gets large answers, too. Where the answers went past the host that was
// asked, the client would refuse them.
const downloaded = 1 << 20 // bytes

// download has a container send bytes by a published port.
func (m *meshLab) download(to string) (n int, err error) {
	m.t.Helper()
	m.in("", func() {
		c, dialErr := net.DialTimeout("tcp", net.JoinHostPort(to, "8081"), 5*time.Second)
		if err = dialErr; err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		data, readErr := io.ReadAll(c)
		n, err = len(data), readErr
	})
	return n, err
}

// offer has a container send as much to each of its clients.
func (m *meshLab) offer(name string) {
	m.t.Helper()
	m.accept(name, ":8081", func(c net.Conn) { _, _ = c.Write(make([]byte, downloaded)); _ = c.Close() })
}

func TestMeshPreserve(t *testing.T) {
	t.Parallel()
	m := newMeshOutside(t, 2)
	m.add("h1", "back", "web")
	m.offer("back")
	m.create("h2", "--port", "81:8081/tcp", "--publish", "8080:80/tcp", "--publish", "8080:80/udp", "--publish", "8081:81/tcp", "--external", "preserve")
	for _, h := range m.hosts { // the other hosts follow after create has returned
		if !lntest.Await(agentPatience, func() bool { return strings.HasPrefix(m.on().ask("", "tcp", m.uplink(h, true), 8080), "back saw") }) {
			t.Fatalf("%s does not follow", h)
		}
	}
	for _, filter := range []string{"0", "1"} {
		for _, netfilter := range []string{"0", "1"} {
			what := "rp_filter=" + filter + " bridge-nf-call=" + netfilter
			for _, h := range m.hosts {
				m.in(netnsPath(h), func() {
					m.check(lntest.Sysctl("ipv4/conf/all/rp_filter", filter))
					m.check(lntest.Sysctl("bridge/bridge-nf-call-iptables", netfilter))
					m.check(lntest.Sysctl("bridge/bridge-nf-call-ip6tables", netfilter))
				})
			}
			for _, h := range m.hosts {
				for _, network := range []string{"tcp4", "tcp6", "udp4", "udp6"} {
					m.checkPublished(network, "", h, "client", what)
				}
			}
			for _, is6 := range []bool{false, true} {
				if got, err := m.download(m.uplink("h2", is6)); got != downloaded || err != nil {
					t.Errorf("%s: %d bytes by %s, %v; want %d", what, got, m.uplink("h2", is6), err, downloaded)
				}
			}
		}
	}
}

// returnPaths is what a host has of them.
func (m *meshLab) returnPaths(host string) (all string) {
	m.in(netnsPath(host), func() {
		all = m.exec("sh", "-c", "nft list ruleset | grep -c libnet-return; for f in -4 -6; do ip $f rule; ip $f route show table all proto 108 | grep table; done; true")
	})
	return all
}

// An agent that is killed while return paths come and go leaves what the next one brings to the
// end, and nothing of it once no service wants any. Hosts that leave, and come, are followed.
func TestMeshPreserveKilled(t *testing.T) {
	t.Parallel()
	m := newMeshOutside(t, 3)
	m.add("h1", "back", "web")
	m.create("h1", "--publish", "8080:80/tcp")
	before := map[string]string{}
	for _, h := range m.hosts {
		before[h] = m.returnPaths(h)
	}
	external := func(on string, to string) {
		m.lnctl(on, "service", "update", "web", "--network", "net0", "--external", to)
	}
	for i := range 8 {
		external("h2", []string{"preserve", "nat"}[i%2])
		time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
		m.procs["h1"].kill(t)
		if i%4 == 2 {
			m.in(netnsPath("h1"), func() { m.exec("nft", "flush", "ruleset") })
		}
		m.start("h1")
	}
	m.awaitHealth("h1", "ok")
	external("h2", "preserve")
	for _, h := range m.hosts[1:] {
		if !lntest.Await(agentPatience, func() bool { return m.on().ask("", "tcp", m.uplink(h, false), 8080) == "back saw "+outsideAddr(false) }) {
			t.Errorf("%s leads to %q", h, m.on().ask("", "tcp", m.uplink(h, false), 8080))
		}
	}
	paths := func() int {
		return strings.Count(m.returnPaths("h1"), "lookup 0x6c6e") + strings.Count(m.returnPaths("h1"), "lookup 181914")
	}
	if n := paths(); n != 4 {
		t.Errorf("%d rules, want one of each family for each of 2 hosts:\n%s", n, m.returnPaths("h1"))
	}
	for _, damage := range []string{"nft delete table inet libnet-return", "nft flush set inet libnet-return marks", "ip rule flush protocol 108 || true", "ip -6 rule flush protocol 108 || true"} { // the agent may be faster than the flush
		m.in(netnsPath("h1"), func() { m.exec("sh", "-c", damage) })
		start, asks := time.Now(), func() bool {
			return m.on().ask("", "tcp", m.uplink("h2", false), 8080) == "back saw "+outsideAddr(false)
		}
		if !lntest.Await(agentPatience, func() bool { return asks() && paths() == 4 }) || time.Since(start) > 30*time.Second {
			t.Errorf("%s: not mended within %s:\n%s", damage, time.Since(start), m.returnPaths("h1"))
		}
	}
	m.procs["h3"].stop(t)
	m.in(netnsPath("h3"), func() {
		if out, err := m.agentCommand("h3", "leave").CombinedOutput(); err != nil {
			t.Errorf("leave: %v: %s", err, out)
		}
	})
	if !lntest.Await(agentPatience, func() bool { return paths() == 2 }) {
		t.Errorf("h3 has left:\n%s", m.returnPaths("h1"))
	}
	if got := m.returnPaths("h3"); got != before["h3"] && strings.Contains(got, "108:") {
		t.Errorf("h3 has left, and has\n%s", got)
	}
	external("h1", "nat")
	for _, h := range m.hosts[:2] {
		if !lntest.Await(agentPatience, func() bool { return m.returnPaths(h) == before[h] }) {
			t.Errorf("left on %s:\n%s\nwant:\n%s", h, m.returnPaths(h), before[h])
		}
	}
}
