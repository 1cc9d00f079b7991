package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// Which address a container sees of a client that asks at a published port of a host, on a
// network that spans hosts. The container is on h1.
//
//	client   the address of the client itself
//	uplink   that of the client's host outside: the client goes there as to any other machine
//	host     that of the host that was asked, on the network
//	-        refused
//
// The clients are a machine outside, containers on h1 and on h2, and programs of these hosts.
const meshPublishTable = `
asks-at:          h1      h2
nat outside       client  host
nat near          client  host
nat far           uplink  host
nat h1            client  host
nat h2            client  host
preserve outside  client  client
preserve near     client  host
preserve far      uplink  client
preserve h1       client  host
preserve h2       client  client
local outside     client  -
local near        client  -
local far         uplink  -
local h1          client  -
local h2          client  -
`

// outsideAddr is that of a machine beside the hosts, which is in the test's own namespace.
func outsideAddr(is6 bool) string { return pick(is6, "2001:db8:7::fe", "192.0.2.254").String() }

// newMeshOutside is newMeshLab with a machine outside, "", and IPv6 on the way to it.
func newMeshOutside(t testing.TB, hosts int) *meshLab {
	t.Helper()
	m := &meshLab{agents: newAgents(t, hosts), keys: meshKeys, all: map[string]container{}}
	m.setAddress("", "lan", outsideAddr(false)+"/24")
	m.setAddress("", "lan", outsideAddr(true)+"/64")
	for i, h := range m.hosts {
		m.setAddress(netnsPath(h), "eth0", fmt.Sprintf("2001:db8:7::%d/64", i+1))
	}
	m.up(m.keys)
	return m
}

// uplink is the address of a host to which the outside goes.
func (m *meshLab) uplink(host string, is6 bool) string {
	return pick(is6, "2001:db8:7::"+host[1:], "192.0.2."+host[1:]).String()
}

func TestMeshPublished(t *testing.T) {
	t.Parallel()
	m := newMeshOutside(t, 3) // no container of the network is on h3
	m.add("h1", "back", "web")
	m.add("h1", "near", "client")
	m.add("h2", "far", "client")
	v4, v6 := m.create("h2", "--publish", "8080:80/tcp", "--publish", "8080:80/udp")
	m.become("at first", "far", v4, "back")
	m.become("at first", "near", v4, "back")
	for _, vip := range []string{v4, v6} { // the outside has a way to it, and gets nothing
		m.route("", vip+"/"+fmt.Sprint(netip.MustParseAddr(vip).BitLen()), m.uplink("h1", strings.Contains(vip, ":")))
		if got := m.on().ask("", "tcp", vip, 80); !strings.HasPrefix(got, "error") {
			t.Errorf("outside asks at %s: %q", vip, got)
		}
	}
	for line := range strings.SplitSeq(strings.TrimSpace(meshPublishTable), "\n") {
		cells := strings.Fields(line)
		if len(cells) != 4 {
			continue
		}
		for _, h := range m.hosts {
			m.lnctl(h, "service", "update", "web", "--network", "net0", "--external", cells[0])
		}
		if cells[1] == "outside" {
			m.checkPublished("tcp4", "", "h3", cells[3], cells[0]+" without a container")
		}
		for i, h := range m.hosts[:2] {
			for _, network := range []string{"tcp4", "tcp6", "udp4", "udp6"} {
				m.checkPublished(network, strings.TrimPrefix(cells[1], "outside"), h, cells[i+2], strings.Join(cells[:2], " "))
			}
		}
	}
	// With "local", of a host without a container: where to ask, and what would change that.
	out, err := m.tryLnctl("h3", "trace", "host", m.uplink("h3", false)+":8080")
	if want := `✗ refused: no container of this host is behind service "web" of network "net0", and with --external local`; err == nil || !strings.Contains(out, want) || !strings.Contains(out, "--external nat") {
		t.Errorf("trace on h3: %v:\n%s\nwant %s", err, out, want)
	}
	for _, h := range m.hosts {
		if out := m.lnctl(h, "doctor"); !strings.Contains(out, "services") {
			t.Errorf("doctor on %s:\n%s", h, out)
		}
		if out := m.lnctl(h, "port", "ls"); !strings.Contains(out, "8080") {
			t.Errorf("port ls on %s:\n%s", h, out)
		}
	}
	m.lnctl("h1", "service", "rm", "web", "--network", "net0")
	for _, h := range m.hosts {
		m.awaitNoService(h)
		if got := m.on().ask("", "tcp", m.uplink(h, false), 8080); !strings.Contains(got, "refused") {
			t.Errorf("%s after rm: %q, want that it is refused", h, got)
		}
		if !lntest.Await(agentPatience, func() bool { return !strings.Contains(m.lnctl(h, "port", "ls"), "8080") }) {
			t.Errorf("port ls on %s after rm:\n%s", h, m.lnctl(h, "port", "ls"))
		}
	}
}

// A port that a container of one host has is that container's there, and the service's on the
// others; the agent says so, and takes it when it is free. What is published may be changed.
func TestMeshPublishedTaken(t *testing.T) {
	t.Parallel()
	m := newMeshOutside(t, 2)
	m.add("h1", "back", "web")
	own := m.addSilent("h2", "own", "client")
	m.on().serve("own", own.netns)
	added := m.mustOn("h2", own.call.as("ADD")).stdout
	ports := attachment("portmap-ln", "own", own.netns, edit(t, `{"cniVersion":"1.1.0","name":"net0","type":"portmap-ln","stateDir":"/run/libnet-h2"}`, map[string]any{
		"prevResult": decode(t, added), "runtimeConfig.portMappings": []any{map[string]any{"hostPort": 8080, "containerPort": 8080, "protocol": "tcp"}},
	})).as("ADD")
	m.mustOn("h2", ports)
	asks := func(host string) string { return m.on().ask("", "tcp", m.uplink(host, false), 8080) }
	v4, _ := m.create("h1", "--publish", "8080:80/tcp")
	m.awaitHealth("h2", "8080")
	m.become("without the port", "own", v4, "back")
	if got := asks("h2"); !strings.HasPrefix(got, "own saw") {
		t.Errorf("the port of a container: %q", got)
	}
	if got := asks("h1"); !strings.HasPrefix(got, "back saw") {
		t.Errorf("the port of the service on the other host: %q", got)
	}
	m.mustOn("h2", ports.as("DEL"))
	m.awaitHealth("h2", "ok")
	if got := asks("h2"); !strings.HasPrefix(got, "back saw") {
		t.Errorf("the port is free again: %q", got)
	}
	m.lnctl("h2", "service", "update", "web", "--network", "net0", "--publish", "8081:80")
	for _, h := range m.hosts {
		if !lntest.Await(agentPatience, func() bool { return strings.Contains(asks(h), "refused") }) {
			t.Errorf("%s: a port that is published no more: %q", h, asks(h))
		}
		if got := m.on().ask("", "tcp", m.uplink(h, false), 8081); !strings.HasPrefix(got, "back saw") {
			t.Errorf("%s: another port is published: %q", h, got)
		}
	}
	for _, bad := range []string{"--publish 192.0.2.1:8082:80", "--external some", "--external Preserve"} {
		if out, err := m.tryLnctl("h1", strings.Fields("service update web --network net0 "+bad)...); err == nil {
			t.Errorf("%s: %s", bad, out)
		}
	}
}

// checkPublished asks from a container, "" is outside, at a host.
func (m *meshLab) checkPublished(network, from, host, want, what string) {
	m.t.Helper()
	is6 := strings.HasSuffix(network, "6")
	got := m.on().ask(from, network[:3], m.uplink(host, is6), 8080)
	saw, ok := strings.CutPrefix(got, "back saw ")
	own := outsideAddr(is6)
	switch {
	case slices.Contains(m.hosts, from):
		own = m.uplink(from, is6)
	case from != "":
		own = m.own(from, is6).String()
	}
	if want == "uplink" {
		want, own = "client", m.uplink(m.all[from].host, is6)
	}
	switch {
	case want == "-" && strings.Contains(got, "refused"):
	case want == "-" || !ok:
		m.t.Errorf("%s, %s at %s: %q, want %q", what, network, host, got, want)
	case want == "client" && saw != own, want == "host" && !m.isOfHost(host, saw):
		m.t.Errorf("%s, %s at %s: its address is seen as %s, want %s", what, network, host, saw, want)
	}
}
