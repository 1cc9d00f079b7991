package integration

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// matrixPorts is where the ports begin that probes come from: below are those that are
// asked, and the kernel's own choice begins at 32768. A world has some 1000 probes.
const matrixPorts = 10000

// matrixLab is a host with two networks and a machine outside that has routes to
// the containers, "world".
type matrixLab struct {
	*reachLab
	world  matrixWorld
	closed []probe // that were asked and must never arrive
	event  string
	port   uint16 // the last probe's own
}

func newMatrixLab(t *testing.T, w matrixWorld) *matrixLab {
	t.Helper()
	f := firewall{w.backend, "ACCEPT"}
	l := &matrixLab{reachLab: &reachLab{host: newHost(t), firewall: f, addrs: map[string][]netip.Addr{}}, world: w, port: matrixPorts}
	l.forwards("")
	l.host.world()
	l.setAddress("", "uplink", "fe80::1/64") // from which a router asks for neighbours
	l.setAddress(netnsPath("world"), "w0", "fe80::2/64")
	l.addrs["world"] = []netip.Addr{worldAddr(false), worldAddr(true)}
	l.addrs["host"] = []netip.Addr{hostAddr(false), hostAddr(true)}
	for _, n := range reachNetworks {
		l.route(netnsPath("world"), n.subnet4, hostAddr(false).String())
		l.route(netnsPath("world"), n.subnet6, hostAddr(true).String())
	}
	for _, name := range []string{"a", "b", "c", "busy"} {
		l.sysctls(l.netns(name), map[string]string{"ipv6/conf/all/accept_dad": "0", "ipv6/conf/default/accept_dad": "0"})
	}
	l.in(netnsPath("busy"), func() {
		l.check(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}}))
	})
	l.answer("world", 80)
	l.answer("a", 80, 81)
	l.answer("b", 80, 81)
	return l
}

// network is the first or the second one. On one bridge both have the same subnet,
// and other addresses of it.
func (l *matrixLab) network(i int) reachNetwork {
	n := reachNetworks[i]
	if l.world.oneBridge {
		n = reachNetworks[0]
		n.name = reachNetworks[i].name
	}
	return n
}

func (l *matrixLab) conf(network int, mode string) string {
	l.t.Helper()
	n := l.network(network)
	part := func(subnet, gateway string) string {
		base := strings.TrimSuffix(gateway, "1")
		return fmt.Sprintf(`[{"subnet":%q,"rangeStart":"%s%d","rangeEnd":"%s%d"}]`, subnet, base, 10+10*network, base, 19+10*network)
	}
	way := "off"
	if l.world.fast {
		way = "auto"
	}
	return edit(l.t, fmt.Sprintf(`{"cniVersion":"1.1.0","type":"bridge-ln","name":%q,"bridge":%q,"backend":%q,"fastPath":%q,"ipam":{"type":"ipam-ln","ranges":[%s,%s]}}`,
		n.name, n.bridge, l.backend, way, part(n.subnet4, n.gateway4), part(n.subnet6, n.gateway6)), matrixModes[mode])
}

// join attaches a container, which then takes the gateway for its router whatever
// it was told, and gives itself addresses of a subnet that all containers share.
func (l *matrixLab) join(name, conf, ports string) call {
	l.t.Helper()
	c := attachment("bridge-ln", name, netnsPath(name), edit(l.t, conf, keys{
		"capabilities.portMappings": true, "runtimeConfig.portMappings": rawJSON(ports),
	}))
	result := l.must(c.as("ADD")).stdout
	l.addrs[name] = nil
	for _, p := range parseResult(l.t, result).addresses(l.t) {
		l.addrs[name] = append(l.addrs[name], p.Addr())
	}
	l.takeGateway("a", "b")
	l.takeGateway("b", "a")
	l.setAddress(netnsPath(name), "eth0", netip.PrefixFrom(layer2Addr(name, false), 24).String())
	l.setAddress(netnsPath(name), "eth0", netip.PrefixFrom(layer2Addr(name, true), 64).String())
	return c.with(edit(l.t, c.stdin, keys{"prevResult": rawJSON(result)}))
}

// takeGateway routes everything by the gateway, what is for the peer, too.
func (l *matrixLab) takeGateway(name, peer string) {
	l.t.Helper()
	if l.addrs[name] == nil {
		return
	}
	n := l.network(slices.Index([]string{"a", "b"}, name))
	l.byGateway(name, n, "0.0.0.0/0")
	l.byGateway(name, n, "::/0")
	for _, a := range l.addrs[peer] {
		l.byGateway(name, n, netip.PrefixFrom(a, a.BitLen()).String())
	}
}

// byGateway routes what is for dst by the gateway, from the address that the
// container was given.
func (l *matrixLab) byGateway(name string, n reachNetwork, dst string) {
	l.t.Helper()
	to := netip.MustParsePrefix(dst)
	is6 := to.Addr().Is6()
	gateway := pick(is6, n.gateway6, n.gateway4)
	l.in(netnsPath(name), func() {
		l.check(netlink.RouteReplace(&netlink.Route{
			Dst: &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), to.Addr().BitLen())},
			Gw:  gateway.AsSlice(), Src: l.addressOf(name, is6).AsSlice(),
		}))
	})
}

// layer2Addr is an address that a container gives itself.
func layer2Addr(name string, is6 bool) netip.Addr {
	if name == "a" {
		return pick(is6, "fd99::1", "10.99.0.1")
	}
	return pick(is6, "fd99::2", "10.99.0.2")
}

func (l *matrixLab) fails(c call) {
	l.t.Helper()
	if r := l.run(c.as("ADD")); r.code == 0 {
		l.t.Fatalf("ADD of %s in %s succeeds: %s", c.cid, c.netns, r.stdout)
	}
	l.must(c.as("DEL"))
}

func (l *matrixLab) collect(conf, valid string) {
	l.t.Helper()
	l.must(call{plugin: "bridge-ln", command: "GC", stdin: edit(l.t, conf, keys{"cni.dev/valid-attachments": rawJSON(valid)})})
}

// status says if STATUS of a network finds it in order.
func (l *matrixLab) status(conf string) bool {
	l.t.Helper()
	return l.run(call{plugin: "bridge-ln", command: "STATUS", stdin: conf}).code == 0
}

func (l *matrixLab) repair() {
	l.t.Helper()
	if out, err := exec.Command(program(l.t, "lnctl"), "repair").CombinedOutput(); err != nil {
		l.t.Errorf("lnctl repair: %v\n%s", err, out)
	}
}

func (l *matrixLab) flush() {
	l.t.Helper()
	conn, err := nftables.New()
	l.check(err)
	conn.FlushRuleset()
	l.check(conn.Flush())
}

// holds asks everything of the tables after an event.
func (l *matrixLab) holds(event string, present ...string) {
	l.t.Helper()
	l.event = event
	probes := l.expected(present)
	got := make([]string, len(probes))
	var wg sync.WaitGroup
	for _, client := range []string{"host", "world", "a", "b"} {
		at := netnsPath(client)
		if client == "host" {
			at = ""
		}
		l.in(at, func() {
			for i, p := range probes {
				if p.client != client {
					continue
				}
				l.port++ // a flow of its own: an earlier one may have been let through
				s, err := dial(p.protocol, l.port, p.to)
				if err != nil {
					got[i] = "✗ " + err.Error()
					continue
				}
				s.words = l.words(p)
				wg.Go(func() { got[i] = p.outcome(s) })
			}
		})
	}
	wg.Wait()
	for i, p := range probes {
		if !strings.HasPrefix(got[i], p.want) {
			l.t.Errorf("%s: %s by %s: %s, want %s", event, p, p.protocol, got[i], p.want)
		}
		if p.want == "✗" && p.protocol == "udp" {
			p.what = l.words(p)
			l.closed = append(l.closed, p)
		}
	}
}

// words tell the datagrams of a probe and an event from all others.
func (l *matrixLab) words(p probe) string { return l.event + ": " + p.String() }

// nothingCameLate says which datagrams arrived that no table lets in: the answer
// may be lost, or they may have waited.
func (l *matrixLab) nothingCameLate() {
	l.t.Helper()
	for _, p := range l.closed {
		if _, arrived := l.heard.Load(p.what); arrived {
			l.t.Errorf("%s: arrives", p.what)
		}
	}
}

// expected returns the probes of the tables for the containers that are there.
func (l *matrixLab) expected(present []string) []probe {
	l.t.Helper()
	both := len(present) == 2
	var all []probe
	for _, name := range present {
		mode, other := l.world.one, l.world.two
		peer := "b"
		if name == "b" {
			mode, other, peer = other, mode, "a"
		}
		for _, what := range []string{"unpub", "direct", "pub", "out", "host"} {
			want := matrixCell(l.t, matrixAlone, mode, what)
			if both && l.world.oneBridge {
				want = strictest(want, matrixCell(l.t, matrixBeside, other, what), mode == other)
			}
			all = append(all, l.probes(name, what, want)...)
		}
		if !both {
			continue
		}
		table := matrixTwoBridges
		if l.world.oneBridge {
			table = matrixOneBridge
			all = append(all, l.probes(name, "layer 2 to "+peer, matrixCell(l.t, matrixLayer2, mode, other))...)
		}
		all = append(all, l.probes(name, "to "+peer, matrixCell(l.t, table, mode, other))...)
	}
	return all
}

// strictest joins a cell with what the other network leaves of it; two networks of
// one mode leave all that one does.
func strictest(own, beside string, same bool) string {
	switch {
	case own == "✗" || beside == "=" || same:
		return own
	}
	return beside
}

// probes ask one cell by both families.
func (l *matrixLab) probes(name, what, want string) []probe {
	l.t.Helper()
	var all []probe
	for _, is6 := range []bool{false, true} {
		client, server, addr, port := "world", name, l.addressOf(name, is6), 81
		verb, peer, _ := strings.Cut(what, "to ")
		switch {
		case what == "direct":
			port = 80
		case what == "pub":
			addr, port = hostAddr(is6), map[string]int{"a": 8080, "b": 8090}[name]
		case what == "out":
			client, server, addr, port = name, "world", worldAddr(is6), 80
		case what == "host":
			client = "host"
		case verb == "":
			client, server, addr = name, peer, l.addressOf(peer, is6)
		case peer != "":
			client, server, addr = name, peer, layer2Addr(peer, is6)
		}
		to := netip.AddrPortFrom(addr, uint16(port))
		all = append(all, probe{client, name + " " + what, "udp", to, server, want})
		if !is6 {
			all = append(all, probe{client, name + " " + what, "tcp", to, server, want})
		}
	}
	return all
}

// matrixCell is that of a table.
func matrixCell(t testing.TB, table, row, column string) string {
	t.Helper()
	for c, cell := range parseTable(t, table, false) {
		if c.client == row && c.what == column {
			return cell
		}
	}
	t.Fatalf("table: no %s, %s", row, column)
	return ""
}
