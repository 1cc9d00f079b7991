package integration

import (
	"strings"
	"testing"
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
