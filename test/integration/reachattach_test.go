package integration

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/vishvananda/netlink"
)

// reachNetwork is a network of the lab.
type reachNetwork struct{ name, bridge, subnet4, subnet6, gateway4, gateway6 string }

var reachNetworks = []reachNetwork{
	{"one", "br1", "10.80.0.0/24", "fd80::/64", "10.80.0.1", "fd80::1"},
	{"two", "br2", "10.81.0.0/24", "fd81::/64", "10.81.0.1", "fd81::1"},
}

// reachPorts publishes one port of the container on any address of the host,
// on certain ones, and on a loopback one.
const reachPorts = `[
	{"hostPort":8080,"containerPort":80,"protocol":"tcp"},
	{"hostPort":8080,"containerPort":80,"protocol":"udp"},
	{"hostPort":8081,"containerPort":80,"protocol":"tcp","hostIP":"192.0.2.10"},
	{"hostPort":8081,"containerPort":80,"protocol":"udp","hostIP":"192.0.2.10"},
	{"hostPort":8081,"containerPort":80,"protocol":"tcp","hostIP":"2001:db8::10"},
	{"hostPort":8081,"containerPort":80,"protocol":"udp","hostIP":"2001:db8::10"},
	{"hostPort":8082,"containerPort":80,"protocol":"tcp","hostIP":"127.0.0.1"},
	{"hostPort":8082,"containerPort":80,"protocol":"udp","hostIP":"127.0.0.1"}
]`

// chain is the calls that attach one container, in the order of ADD.
type chain []call

// container is an attachment to a network, with ports, "[...]", or none, "".
func (l *reachLab) container(n reachNetwork, name, ports string) chain {
	l.t.Helper()
	base := fmt.Sprintf(`{"cniVersion":"1.1.0","type":"bridge-ln","name":%q,"bridge":%q,
		"ipam":{"type":"ipam-ln","ranges":[[{"subnet":%q}],[{"subnet":%q}]]}}`, n.name, n.bridge, n.subnet4, n.subnet6)
	m := reachModes[l.mode]
	c := chain{attachment("bridge-ln", name, netnsPath(name), edit(l.t, edit(l.t, base, m.keys), keys{"backend": l.backend}))}
	if m.chained {
		c = append(c, attachment("portmap-ln", name, netnsPath(name), edit(l.t, base, keys{"type": "portmap-ln", "ipam": nil, "bridge": nil, "backend": l.backend})))
	}
	if last := &c[len(c)-1]; ports != "" {
		*last = last.with(edit(l.t, last.stdin, keys{"capabilities.portMappings": true, "runtimeConfig.portMappings": rawJSON(ports)}))
	}
	return c
}

// rawJSON goes into a configuration as it stands.
type rawJSON string

// MarshalJSON returns it.
func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }

// add makes a container, keeps its addresses, and returns the calls for what
// comes after ADD.
func (l *reachLab) add(c chain) chain {
	l.t.Helper()
	var result string
	with := func(i int) call {
		if result == "" {
			return c[i]
		}
		return c[i].with(edit(l.t, c[i].stdin, keys{"prevResult": rawJSON(result)}))
	}
	for i := range c {
		result = l.must(with(i).as("ADD")).stdout
	}
	l.addrs[c[0].cid] = nil
	for _, p := range parseResult(l.t, result).addresses(l.t) {
		l.addrs[c[0].cid] = append(l.addrs[c[0].cid], p.Addr())
	}
	var later chain
	for i := range c {
		later = append(later, with(i))
	}
	return later
}

// wayOut has containers do what they can to get out, and to be reached: they
// send what is for 127.0.0.0/8 to the host, and take it for their router even
// if they are given no route, and it has no address on their bridge.
func (l *reachLab) wayOut() {
	l.t.Helper()
	for name, n := range map[string]reachNetwork{"server": reachNetworks[0], "sibling": reachNetworks[0], "other": reachNetworks[1]} {
		gateway4, gateway6 := n.gateway4, n.gateway6
		if l.mode == "isolated" {
			gateway4, gateway6 = hostAddr(false).String(), hostAddr(true).String()
			l.behind(name, n.bridge, gateway4, gateway6)
		}
		l.route(netnsPath(name), "0.0.0.0/0", gateway4)
		l.route(netnsPath(name), "::/0", gateway6)
		if name != "server" {
			l.stealLoopback(name, gateway4)
		}
	}
}

// behind makes a container send what is for addresses to the bridge's MAC.
func (l *reachLab) behind(name, bridge string, addrs ...string) {
	l.t.Helper()
	br, err := netlink.LinkByName(bridge)
	l.check(err)
	l.in(netnsPath(name), func() {
		eth0, err := netlink.LinkByName("eth0")
		l.check(err)
		for _, a := range addrs {
			ip := netip.MustParseAddr(a)
			l.check(netlink.NeighSet(&netlink.Neigh{
				LinkIndex: eth0.Attrs().Index, IP: ip.AsSlice(), State: netlink.NUD_PERMANENT, HardwareAddr: br.Attrs().HardwareAddr,
			}))
			to := netlink.NewIPNet(ip.AsSlice())
			l.check(netlink.RouteReplace(&netlink.Route{LinkIndex: eth0.Attrs().Index, Dst: to, Scope: netlink.SCOPE_LINK}))
		}
	})
}

// verify runs CHECK of every plugin.
func (l *reachLab) verify(c chain) {
	l.t.Helper()
	for _, call := range c {
		l.must(call.as("CHECK"))
	}
}

// del takes a container away, as runtimes do: the last plugin first.
func (l *reachLab) del(c chain) {
	l.t.Helper()
	for i := range c {
		l.must(c[len(c)-1-i].as("DEL"))
	}
}

// counters are those of a chain of iptables.
var counters = regexp.MustCompile(`\[\d+:\d+\]`)

// rules is everything of nftables and iptables that is on the host, without
// counters and comments, in which the time stands.
func (l *reachLab) rules() string {
	l.t.Helper()
	all := l.tool("", "nft", "--stateless", "list", "ruleset")
	if l.iptables() { // asking makes its tables
		all += l.tool("", "iptables-save") + l.tool("", "ip6tables-save")
	}
	var rules strings.Builder
	for line := range strings.Lines(all) {
		if !strings.HasPrefix(line, "#") {
			rules.WriteString(counters.ReplaceAllString(line, ""))
		}
	}
	return rules.String()
}

// prime makes the tables of iptables, which iptables never removes again.
func (l *reachLab) prime() {
	l.t.Helper()
	var text strings.Builder
	for _, table := range []struct{ name, chains string }{
		{"raw", "PREROUTING OUTPUT"},
		{"mangle", "PREROUTING INPUT FORWARD OUTPUT POSTROUTING"},
		{"nat", "PREROUTING INPUT OUTPUT POSTROUTING"},
		{"filter", "INPUT FORWARD OUTPUT"},
	} {
		fmt.Fprintf(&text, "*%s\n", table.name)
		for chain := range strings.FieldsSeq(table.chains) {
			policy := "ACCEPT"
			if table.name == "filter" && chain == "FORWARD" {
				policy = l.forward
			}
			fmt.Fprintf(&text, ":%s %s [0:0]\n", chain, policy)
		}
		text.WriteString("COMMIT\n")
	}
	for _, name := range []string{"iptables-restore", "ip6tables-restore"} {
		l.tool(text.String(), name)
	}
}

// addressOf returns the address of one family.
func (l *reachLab) addressOf(name string, is6 bool) netip.Addr {
	l.t.Helper()
	for _, a := range l.addrs[name] {
		if a.Is6() == is6 {
			return a
		}
	}
	l.t.Fatalf("%s has addresses %v", name, l.addrs[name])
	return netip.Addr{}
}
