package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// The tables say which container resolves which, over several hosts: a1 is on host h1 and network net0,
// a2 on h2, a3 on h3; b2 is on h2 and net1; c1 and c2 are on net2, which spans h1 and h2
// by `nodes`, without etcd. Each asks its gateway, at which a server knows no name.
//
//	✓  the container's address on the network that both are on
//	✗  the server was asked
const (
	hostsTable = `
	    a1  a2  a3  b2  c1  c2
	a1  ✓   ✓   ✓   ✗   ✗   ✗
	a2  ✓   ✓   ✓   ✗   ✗   ✗
	a3  ✓   ✓   ✓   ✗   ✗   ✗
	b2  ✗   ✗   ✗   ✓   ✗   ✗
	c1  ✗   ✗   ✗   ✗   ✓   ✗
	c2  ✗   ✗   ✗   ✗   ✗   ✓
	`
	// The agent of h2 is killed: its own containers ask in vain, and the others still
	// know them, as they may run.
	killedTable = `
	    a1  a2  a3  b2  c1  c2
	a1  ✓   ✓   ✓   ✗   ✗   ✗
	a2  ✗   ✗   ✗   ✗   ✗   ✗
	a3  ✓   ✓   ✓   ✗   ✗   ✗
	b2  ✗   ✗   ✗   ✗   ✗   ✗
	c1  ✗   ✗   ✗   ✗   ✓   ✗
	c2  ✗   ✗   ✗   ✗   ✗   ✗
	`
	// The lease of h2 has ended: it may be gone.
	deadTable = `
	    a1  a2  a3  b2  c1  c2
	a1  ✓   ✗   ✓   ✗   ✗   ✗
	a3  ✓   ✗   ✓   ✗   ✗   ✗
	c1  ✗   ✗   ✗   ✗   ✓   ✗
	`
	// Without etcd the agents that run know what they knew.
	apartTable = hostsTable
	// After DEL of a3.
	delTable = `
	    a1  a2  a3  b2  c1  c2
	a1  ✓   ✓   ✗   ✗   ✗   ✗
	a2  ✓   ✓   ✗   ✗   ✗   ✗
	b2  ✗   ✗   ✗   ✓   ✗   ✗
	`
)

// farNames is a cluster with containers that have names.
type farNames struct {
	*agents
	ask map[string]container
}

func newFarNames(t testing.TB, hosts int) *farNames {
	t.Helper()
	f := &farNames{agents: newAgents(t, hosts), ask: map[string]container{}}
	for _, h := range f.hosts {
		f.in(netnsPath(h), func() {
			c, err := listenPacket(":53")
			f.check(err)
			s := &dns.Server{PacketConn: c, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
				m := new(dns.Msg)
				_ = w.WriteMsg(m.SetRcode(q, dns.RcodeNameError))
			})}
			go func() { _ = s.ActivateAndServe() }()
			t.Cleanup(func() { _ = c.Close() })
		})
	}
	return f
}

var farKeys = map[string]any{"names": true}

// named adds a container to a network, which is its number.
func (f *farNames) named(net int, host, name string) container {
	f.t.Helper()
	conf := f.agentConf(net, host, farKeys)
	if net == 2 {
		conf = f.conf(net, host, farKeys)
	}
	p := container{net: net, host: host, netns: f.netns(name)}
	p.call = attachment("overlay-ln", name, p.netns, conf)
	p.call.args = "NAME=" + name
	for _, a := range parseResult(f.t, f.mustOn(host, p.call.as("ADD")).stdout).addresses(f.t) {
		p.addresses = append(p.addresses, a.Addr())
	}
	f.ask[name] = p
	return p
}

// resolves asks from a container, its gateway, once.
func (f *farNames) resolves(from, name string) string {
	f.t.Helper()
	gateway := f.ask[from].addresses[0].As4()
	gateway[3] = 1
	l := &namesLab{host: f.host}
	return l.answers(query{from: from, server: netip.AddrFrom4(gateway).String(), name: name})
}

func (f *farNames) cell(from, name string) string {
	got := f.resolves(from, name)
	switch {
	case got == "nxdomain":
		return "✗"
	case f.ask[from].net == f.ask[name].net && got == f.ask[name].addresses[0].String():
		return "✓"
	}
	return got
}

// become waits until all answers are those of a table.
func (f *farNames) become(event, table string) {
	f.t.Helper()
	lines := strings.Split(strings.TrimSpace(table), "\n")
	names := strings.Fields(lines[0])
	var wrong []string
	for end := time.Now().Add(agentPatience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		wrong = nil
		for _, line := range lines[1:] {
			cells := strings.Fields(line)
			for i, want := range cells[1:] {
				if got := f.cell(cells[0], names[i]); got != want {
					wrong = append(wrong, fmt.Sprintf("%s asks for %s: %s, want %s", cells[0], names[i], got, want))
				}
			}
		}
		if len(wrong) == 0 {
			return
		}
	}
	f.t.Fatalf("%s: %s", event, strings.Join(wrong, "\n"))
}

// Names come to the other hosts of a network by etcd, and go with the container and with
// its host. Without etcd each host knows its own.
func TestAgentNames(t *testing.T) {
	t.Parallel()
	f := newFarNames(t, 3)
	live := []string{"--live-ttl", "10s"}
	f.up(farKeys, live...)
	for _, h := range []string{"h1", "h2"} {
		f.configure(1, h, farKeys)
		f.awaitAgent(h, "/metrics", "second network", func(body string, _ int) bool {
			return metric(body, `libnet_agent_network_ok{network="net1"}`) == 1
		})
	}
	f.named(0, "h1", "a1")
	f.named(0, "h2", "a2")
	a3 := f.named(0, "h3", "a3")
	f.named(1, "h2", "b2")
	f.named(2, "h1", "c1")
	f.named(2, "h2", "c2")
	f.become("after ADD", hostsTable)
	f.procs["h2"].kill(t)
	f.become("after kill -9 of h2's agent", killedTable)
	f.become("after the end of h2's lease", deadTable)
	f.start("h2", live...)
	f.become("after its restart", hostsTable)
	f.procs["h2"].stop(t)
	f.start("h2", live...)
	f.become("after SIGTERM and a restart", hostsTable)
	f.etcd.Kill()
	f.awaitHealth("h1", "etcd:")
	f.become("without etcd", apartTable)
	f.startEtcd()
	for _, h := range f.hosts {
		f.awaitHealth(h, "ok")
	}
	f.become("with etcd again", hostsTable)
	f.mustOn("h3", a3.call.as("DEL"))
	f.become("after DEL", delTable)
}

// A name is known on the other host soon after ADD has returned, and forgotten soon after
// DEL has. The times are in the log: 100 ms are wanted.
func TestAgentNamesSoon(t *testing.T) {
	t.Parallel()
	f := newFarNames(t, 2)
	f.up(farKeys)
	f.named(0, "h1", "asks")
	var came, went []time.Duration
	until := func(name string, is bool) time.Duration {
		start := time.Now()
		for (f.resolves("asks", name) != "nxdomain") != is {
			if time.Since(start) > agentPatience {
				t.Fatalf("%s: known is not %v within %s", name, is, agentPatience)
			}
		}
		return time.Since(start)
	}
	for i := range 20 {
		p := f.named(0, "h2", fmt.Sprint("new", i))
		came = append(came, until(fmt.Sprint("new", i), true))
		f.mustOn("h2", p.call.as("DEL"))
		went = append(went, until(fmt.Sprint("new", i), false))
	}
	for what, all := range map[string][]time.Duration{"known after ADD": came, "forgotten after DEL": went} {
		slices.Sort(all)
		t.Logf("%s: p50 %s, max %s", what, all[len(all)/2], all[len(all)-1])
		if all[len(all)/2] > 5*time.Second { // a poll, not an event
			t.Errorf("%s: %s", what, all)
		}
	}
}
