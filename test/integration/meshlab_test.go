package integration

import (
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// meshLab is a cluster whose hosts have the network net0 by ln-agent, with names and services.
type meshLab struct {
	*agents
	keys map[string]any
	all  map[string]container
}

var meshKeys = map[string]any{"names": true}

// newMeshLab makes hosts and starts their agents.
func newMeshLab(t testing.TB, hosts int, args ...string) *meshLab {
	t.Helper()
	m := &meshLab{agents: newAgents(t, hosts), keys: meshKeys, all: map[string]container{}}
	m.up(m.keys, args...)
	return m
}

// on is the lab of one host, for what servicesLab does.
func (m *meshLab) on() *servicesLab { return &servicesLab{host: m.host} }

// add starts a container on a host that has an alias and answers at port 8080 of TCP and UDP
// with its name and the client's address.
func (m *meshLab) add(host, name, alias string) container {
	m.t.Helper()
	p := m.addSilent(host, name, alias)
	m.on().serve(name, p.netns)
	return p
}

// addSilent is add without a program that listens.
func (m *meshLab) addSilent(host, name, alias string) container {
	m.t.Helper()
	p := container{host: host, netns: m.netns(name)}
	p.call = m.callOf(host, name, alias)
	for _, addr := range parseResult(m.t, m.mustOn(host, p.call.as("ADD")).stdout).addresses(m.t) {
		p.addresses = append(p.addresses, addr.Addr())
	}
	m.all[name] = p
	return p
}

func (m *meshLab) callOf(host, name, alias string) call {
	c := attachment("overlay-ln", name, netnsPath(name), m.agentConf(0, host, m.keys))
	c.args = "NAME=" + alias
	return c
}

// del removes a container.
func (m *meshLab) del(name string) {
	m.t.Helper()
	p := m.all[name]
	m.mustOn(p.host, p.call.as("DEL"))
}

// tryLnctl calls lnctl on a host.
func (m *meshLab) tryLnctl(host string, args ...string) (out string, err error) {
	m.t.Helper()
	m.in(netnsPath(host), func() {
		data, cmdErr := exec.Command(program(m.t, "lnctl"), append([]string{"--state-dir", "/run/libnet-" + host, "--data-dir", "/var/lib/leases-" + host}, args...)...).CombinedOutput()
		out, err = strings.TrimSpace(string(data)), cmdErr
	})
	return out, err
}

func (m *meshLab) lnctl(host string, args ...string) string {
	m.t.Helper()
	out, err := m.tryLnctl(host, args...)
	if err != nil {
		m.t.Fatalf("lnctl %s on %s: %v: %s", strings.Join(args, " "), host, err, out)
	}
	return out
}

// create makes the service "web" on a host and returns its addresses.
func (m *meshLab) create(host string, args ...string) (v4, v6 string) {
	m.t.Helper()
	out := m.lnctl(host, append([]string{"service", "create", "web", "--network", "net0", "--select", "alias=web", "--port", "80:8080/tcp", "--port", "80:8080/udp"}, args...)...)
	v4, v6, _ = strings.Cut(out, ",")
	return v4, v6
}

// asks opens n connections out of a container to port 80 and counts the answers.
func (m *meshLab) asks(from, to string, n int) map[string]int {
	m.t.Helper()
	got := map[string]int{}
	for range n {
		name, _, _ := strings.Cut(m.on().ask(from, "tcp", to, 80), " saw")
		got[name]++
	}
	return got
}

// become waits until connections out of a container lead to these, and to no other.
func (m *meshLab) become(event, from, to string, want ...string) {
	m.t.Helper()
	var got map[string]int
	for end := time.Now().Add(agentPatience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		got = m.asks(from, to, 8*len(want))
		others := maps.Clone(got)
		for _, name := range want {
			delete(others, name)
		}
		if len(others) == 0 && len(got) == len(want) {
			return
		}
	}
	m.t.Fatalf("%s: %s asks %s: %v, want %v", event, from, to, got, want)
}

// own is an address of a container.
func (m *meshLab) own(name string, is6 bool) netip.Addr {
	m.t.Helper()
	for _, a := range m.all[name].addresses {
		if a.Is6() == is6 {
			return a
		}
	}
	m.t.Fatal(fmt.Sprint(name, " has no such address"))
	return netip.Addr{}
}
