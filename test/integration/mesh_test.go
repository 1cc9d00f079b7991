package integration

import (
	"strings"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// Which address a container behind a service sees of its client, on a network that spans
// hosts. The container is on host h1.
//
//	client   the address of the client itself
//	host     that of the client's host on the network
const meshTable = `
client:      container-h1  container-h2  the-container-itself  h1    h2
tcp4         client        client        host                  host  host
tcp6         client        client        host                  host  host
udp4         client        client        host                  host  host
udp6         client        client        host                  host  host
`

// checkMeshTable makes the service and its container and asks for each cell.
func checkMeshTable(m *meshLab) {
	t := m.t
	t.Helper()
	v4, v6 := m.create("h2")
	m.add("h1", "back", "web")
	m.add("h1", "near", "client")
	m.add("h2", "far", "client")
	m.become("at first", "far", v4, "back")
	m.become("at first", "near", v4, "back")
	lines := strings.Split(strings.TrimSpace(meshTable), "\n")
	for _, line := range lines[1:] {
		cells := strings.Fields(line)
		is6 := strings.HasSuffix(cells[0], "6")
		vip := v4
		if is6 {
			vip = v6
		}
		for i, from := range []string{"near", "far", "back", "h1", "h2"} {
			got := m.on().ask(from, cells[0][:3], vip, 80)
			saw, ok := strings.CutPrefix(got, "back saw ")
			switch want := cells[i+1]; {
			case !ok:
				t.Errorf("%s from %s: %q", cells[0], from, got)
			case want == "client" && saw != m.own(from, is6).String():
				t.Errorf("%s from %s: its address is seen as %s", cells[0], from, saw)
			case want == "host" && !m.isOfHost(from, saw):
				t.Errorf("%s from %s: its address is seen as %s", cells[0], from, saw)
			}
		}
	}
}

// isOfHost says whether an address is that of a host on the network, given the host or one of
// its containers.
func (m *meshLab) isOfHost(name, addr string) bool {
	if p, is := m.all[name]; is {
		name = p.host
	}
	out := ""
	m.in(netnsPath(name), func() { out = m.exec("ip", "-o", "addr") })
	return strings.Contains(out, " "+addr+"/") && (strings.HasPrefix(addr, "10.80.") || strings.HasPrefix(addr, "fd80:"))
}

func TestMeshClientAddress(t *testing.T) {
	t.Parallel()
	m := newMeshLab(t, 2)
	checkMeshTable(m)
	for _, h := range m.hosts {
		out := m.lnctl(h, "service", "inspect", "web", "--network", "net0")
		for _, want := range []string{"back", "HOST", "h1", "weight 1"} {
			if !strings.Contains(out, want) {
				t.Errorf("inspect on %s does not tell of %s:\n%s", h, want, out)
			}
		}
	}
}

// A service made on one host is there on all, with the containers of all: they come with ADD
// and go with DEL on whatever host, a change on one host is one on all, and with `rm` nothing
// is left anywhere.
func TestMeshLife(t *testing.T) {
	t.Parallel()
	m := newMeshLab(t, 3)
	m.add("h1", "near", "client")
	m.addSilent("h2", "there", "client") // a bridge stays
	m.add("h3", "far", "client")
	before := map[string]snapshot{}
	for _, h := range m.hosts {
		m.in(netnsPath(h), func() { before[h] = m.snapshot() })
	}
	v4, _ := m.create("h1")
	if got := m.on().ask("far", "tcp", v4, 80); !strings.Contains(got, "refused") {
		t.Errorf("without containers: %q, want that it is refused", got)
	}
	if got := m.on().ask("far", "tcp", v4, 81); !strings.Contains(got, "refused") {
		t.Errorf("another port: %q, want that it is refused", got)
	}
	m.add("h1", "b1", "web")
	m.add("h2", "b2", "WEB")
	m.become("after ADD", "near", v4, "b1", "b2")
	m.become("after ADD", "far", v4, "b1", "b2")
	m.lnctl("h3", "service", "drain", "web", "b1", "--network", "net0")
	m.become("b1 is drained on h3", "near", v4, "b2")
	m.become("b1 is drained on h3", "far", v4, "b2")
	m.lnctl("h2", "service", "drain", "web", "b1", "--network", "net0", "--undo")
	m.become("b1 is not drained any more", "far", v4, "b1", "b2")
	m.lnctl("h2", "service", "update", "web", "--network", "net0", "--weight", "b2=0")
	m.become("b2 has the weight 0", "near", v4, "b1")
	m.lnctl("h1", "service", "update", "web", "--network", "net0", "--weight", "b2=1", "--affinity", "client")
	for _, from := range []string{"near", "far"} {
		var got map[string]int
		if !lntest.Await(agentPatience, func() bool { got = m.asks(from, v4, 10); return len(got) == 1 }) {
			t.Errorf("with affinity %s is led to %v", from, got)
		}
	}
	m.lnctl("h1", "service", "update", "web", "--network", "net0", "--affinity", "none")
	m.del("b1")
	m.become("after DEL of b1", "near", v4, "b2")
	m.become("after DEL of b1", "far", v4, "b2")
	for _, h := range m.hosts {
		out := m.lnctl(h, "service", "ls")
		if !strings.Contains(out, "web") || !strings.Contains(out, v4) {
			t.Errorf("ls on %s:\n%s", h, out)
		}
		if out := m.lnctl(h, "doctor"); !strings.Contains(out, "services") {
			t.Errorf("doctor on %s:\n%s", h, out)
		}
		m.lnctl(h, "repair")
		m.awaitAgent(h, "/metrics", "service", func(body string, _ int) bool {
			return metric(body, `libnet_service_backends{network="net0",service="web",state="ready"}`) == 1 && metric(body, `libnet_service_ok`) == 1
		})
	}
	body, _ := m.get("h1", "/metrics")
	if metric(body, `libnet_service_connections_total{network="net0",port="80:8080/tcp",service="web"}`) < 1 {
		t.Errorf("no connections are counted:\n%s", body)
	}
	if metric(body, `libnet_service_backend_connections_total{container="b2",host="h2",network="net0",service="web"}`) < 1 {
		t.Errorf("no connections to b2 are counted:\n%s", body)
	}
	m.become("after repair", "far", v4, "b2")
	if out, err := m.tryLnctl("h2", "service", "create", "web", "--network", "net0", "--select", "alias=web", "--port", "80"); err == nil {
		t.Errorf("the same service again: %s", out)
	}
	m.lnctl("h2", "service", "rm", "web", "--network", "net0")
	m.del("b2")
	for _, h := range m.hosts {
		m.awaitNoService(h)
		m.in(netnsPath(h), func() { m.same(before[h]) })
	}
}

// awaitNoService waits until a host has the service "web" no more.
func (m *meshLab) awaitNoService(host string) {
	m.t.Helper()
	out := ""
	for end := time.Now().Add(agentPatience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if out = m.lnctl(host, "service", "ls"); !strings.Contains(out, "web") {
			return
		}
	}
	m.t.Fatalf("%s has still:\n%s", host, out)
}

// The names of services lead to their address on every host, of those without an address to
// the containers of all hosts.
func TestMeshNames(t *testing.T) {
	t.Parallel()
	f := newFarNames(t, 2)
	m := &meshLab{agents: f.agents, keys: meshKeys, all: map[string]container{}}
	f.up(farKeys)
	f.named(0, "h1", "a1")
	f.named(0, "h2", "a2")
	v4, _ := m.create("h1")
	m.lnctl("h2", "service", "create", "all", "--network", "net0", "--select", "alias=a1", "--vip", "none")
	for _, asks := range []string{"a1", "a2"} {
		for name, want := range map[string]string{"web": v4, "all": f.ask["a1"].addresses[0].String()} {
			got := ""
			for end := time.Now().Add(agentPatience); got != want && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				got = f.resolves(asks, name)
			}
			if got != want {
				t.Errorf("%s asks for %s: %s, want %s", asks, name, got, want)
			}
		}
	}
}

// On a network that is encrypted services are as on any other.
func TestMeshEncrypted(t *testing.T) {
	t.Parallel()
	r := newRotatingIdle(t, 2)
	m := &meshLab{agents: r.agents, keys: merge(r.keys, meshKeys), all: map[string]container{}}
	for _, h := range m.hosts {
		m.configure(0, h, m.keys)
		m.start(h)
	}
	for _, h := range m.hosts {
		m.awaitPeers(h, 1)
	}
	c := r.capture()
	checkMeshTable(m)
	m.setAddress("", "lan", outsideAddr(false)+"/24")
	m.lnctl("h2", "service", "update", "web", "--network", "net0", "--publish", "8080:80")
	m.checkPublished("tcp4", "", "h2", "host", "encrypted")
	for _, change := range []string{"service update web --external preserve", "service create other --select alias=web --port 80 --publish 8081:80 --external preserve"} {
		if out, err := m.tryLnctl("h1", append(strings.Fields(change), "--network", "net0")...); err == nil || !strings.Contains(out, "is encrypted, and WireGuard lets no address of a client outside through; want nat or local") {
			t.Errorf("%s: %v: %s", change, err, out)
		}
	}
	if got := c.sealed("services"); got.wireguard == 0 {
		t.Errorf("%d frames, none of WireGuard", got.all)
	}
}
