package integration

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The tables say which place reaches what. The places: see reachLab; self is the server.
//
//	ping    the server answers ICMP echo
//	pub     the server's own address, the port that is published
//	unpub   the server's own address, another port
//	any     192.0.2.1:8080, published on any address of the host
//	gw      10.80.0.1:8080, the same, by the host's address on the bridge
//	spec    192.0.2.10:8081, published on this address
//	wrong   192.0.2.1:8081, which is not published
//	any127  127.0.0.1:8080, by IPv6 [::1]:8080
//	lo      127.0.0.1:8082, published on this address
//	away    192.0.2.2:8080, a service of the neighbour, not of ours
//
// Every port is asked by TCP and UDP. Cells:
//
//	✓  comes through, and is seen to come from the client's own address
//	M  comes through, and is seen to come from the host: masqueraded
//	✗  does not come through
//	-  is not asked, because it says nothing
//
// The families differ where IPv4/IPv6 stands. The results are libnetwork's without
// its userland proxy, but that lets any127 in by IPv6, too: it is the proxy
// that does, by a socket, and we have none (IPv6 has no route_localnet).
const (
	openTable = `
	           ping  pub  unpub  any  gw  spec  wrong  any127  lo   away
	host       ✓     ✓    ✓      ✓    ✓   ✓     ✗      M/✗     M/-  ✓
	neighbour  ✓     ✓    ✓      ✓    ✓   ✓     ✗      -       -    -
	remote     ✓     ✓    ✓      ✓    -   ✓     ✗      -       -    -
	attacker   ✓     ✓    ✓      ✓    ✓   ✓     ✗      ✗/-     ✗/-  -
	sibling    ✓     ✓    ✓      M    M   M     ✗      ✗/-     ✗/-  ✓
	other      ✓     ✓    ✓      ✓    ✓   ✓     ✗      ✗/-     ✗/-  ✓
	self       -     -    -      M    M   M     ✗      -       -    ✓
	`
	// Containers are masqueraded on every way out of their bridge.
	natTable = `
	           ping  pub  unpub  any  gw  spec  wrong  any127  lo   away
	host       ✓     ✓    ✓      ✓    ✓   ✓     ✗      M/✗     M/-  ✓
	neighbour  ✗     ✗    ✗      ✓    ✓   ✓     ✗      -       -    -
	remote     ✗     ✗    ✗      ✓    -   ✓     ✗      -       -    -
	attacker   ✗     ✗    ✗      ✓    ✓   ✓     ✗      ✗/-     ✗/-  -
	sibling    ✓     ✓    ✓      M    M   M     ✗      ✗/-     ✗/-  M
	other      ✗     ✗    ✗      M    M   M     ✗      ✗/-     ✗/-  M
	self       -     -    -      M    M   M     ✗      -       -    M
	`
	unprotectedTable = `
	           ping  pub  unpub  any  gw  spec  wrong  any127  lo   away
	host       ✓     ✓    ✓      ✓    ✓   ✓     ✗      M/✗     M/-  ✓
	neighbour  ✓     ✓    ✓      ✓    ✓   ✓     ✗      -       -    -
	remote     ✓     ✓    ✓      ✓    -   ✓     ✗      -       -    -
	attacker   ✓     ✓    ✓      ✓    ✓   ✓     ✗      ✗/-     ✗/-  -
	sibling    ✓     ✓    ✓      M    M   M     ✗      ✗/-     ✗/-  M
	other      ✓     M    M      M    M   M     ✗      ✗/-     ✗/-  M
	self       -     -    -      M    M   M     ✗      -       -    M
	`
	routedTable = `
	           ping  pub  unpub  any  gw  spec  wrong  any127  lo   away
	host       ✓     ✓    ✓      ✗    ✗   ✗     ✗      ✗       ✗/-  ✓
	neighbour  ✓     ✓    ✗      ✗    ✗   ✗     ✗      -       -    -
	remote     ✓     ✓    ✗      ✗    -   ✗     ✗      -       -    -
	attacker   ✓     ✓    ✗      ✗    ✗   ✗     ✗      ✗/-     ✗/-  -
	sibling    ✓     ✓    ✓      ✗    ✗   ✗     ✗      ✗/-     ✗/-  ✓
	other      ✓     ✓    ✗      ✗    ✗   ✗     ✗      ✗/-     ✗/-  ✓
	self       -     -    -      ✗    ✗   ✗     ✗      -       -    ✓
	`
	// The host has no address on the bridge, and publishes nothing.
	isolatedTable = `
	           ping  pub  unpub  any  gw  spec  wrong  any127  lo   away
	host       ✗     ✗    ✗      ✗    ✗   ✗     ✗      ✗       ✗/-  ✓
	neighbour  ✗     ✗    ✗      ✗    ✗   ✗     ✗      -       -    -
	remote     ✗     ✗    ✗      ✗    -   ✗     ✗      -       -    -
	attacker   ✗     ✗    ✗      ✗    ✗   ✗     ✗      ✗/-     ✗/-  -
	sibling    ✓     ✓    ✓      ✗    ✗   ✗     ✗      ✗/-     ✗/-  ✗
	other      ✗     ✗    ✗      ✗    ✗   ✗     ✗      ✗/-     ✗/-  ✗
	self       -     -    -      ✗    ✗   ✗     ✗      -       -    ✗
	`
	// No port of an internal network is published, as with libnetwork.
	internalTable = `
	           ping  pub  unpub  any  gw  spec  wrong  any127  lo   away
	host       ✓     ✓    ✓      ✗    ✗   ✗     ✗      ✗       ✗/-  ✓
	neighbour  ✗     ✗    ✗      ✗    ✗   ✗     ✗      -       -    -
	remote     ✗     ✗    ✗      ✗    -   ✗     ✗      -       -    -
	attacker   ✗     ✗    ✗      ✗    ✗   ✗     ✗      ✗/-     ✗/-  -
	sibling    ✓     ✓    ✓      ✗    ✗   ✗     ✗      ✗/-     ✗/-  ✗
	other      ✗     ✗    ✗      ✗    ✗   ✗     ✗      ✗/-     ✗/-  ✗
	self       -     -    -      ✗    ✗   ✗     ✗      -       -    ✗
	`
	// forwardDropTable says what is left of any mode with the nftables backend
	// where iptables' FORWARD has the policy DROP ("=" is as without it): only
	// what is not forwarded. nftables asks all tables, and one that drops has
	// the last word; so it is with libnetwork's nftables backend. The iptables
	// backend accepts in that very chain: there is no such difference, but for
	// portmap-ln, which accepts nothing, as the reference portmap: that is the
	// work of a firewall plugin in the same list.
	forwardDropTable = `
	           ping  pub  unpub  any  gw  spec  wrong  any127  lo   away
	host       =     =    =      =    =   =     =      =       =    =
	neighbour  ✗     ✗    ✗      ✗    ✗   ✗     ✗      -       -    -
	remote     ✗     ✗    ✗      ✗    -   ✗     ✗      -       -    -
	attacker   ✗     ✗    ✗      ✗    ✗   ✗     ✗      ✗/-     ✗/-  -
	sibling    =     =    =      ✗    ✗   ✗     ✗      ✗/-     ✗/-  ✗
	other      ✗     ✗    ✗      ✗    ✗   ✗     ✗      ✗/-     ✗/-  ✗
	self       -     -    -      ✗    ✗   ✗     ✗      -       -    ✗
	`
)

// reachMode is a row of keys and what they give, by family.
type reachMode struct {
	keys    keys
	v4, v6  string
	chained bool // ports are published by portmap-ln
}

func (m reachMode) table(is6 bool) string {
	if is6 {
		return m.v6
	}
	return m.v4
}

var reachModes = map[string]reachMode{
	"open":            {keys{"isDefaultGateway": true}, openTable, openTable, false},
	"portmap-ln":      {keys{"isDefaultGateway": true}, openTable, openTable, true},
	"nat":             {keys{"gatewayMode": "nat"}, natTable, natTable, false},
	"nat-unprotected": {keys{"gatewayMode": "nat-unprotected"}, unprotectedTable, unprotectedTable, false},
	"routed":          {keys{"gatewayMode": "routed"}, routedTable, routedTable, false},
	"nat and routed":  {keys{"gatewayMode": keys{"ipv4": "nat", "ipv6": "routed"}}, natTable, routedTable, false},
	"isolated":        {keys{"gatewayMode": "isolated"}, isolatedTable, isolatedTable, false},
	"internal":        {keys{"internal": true, "isGateway": true}, internalTable, internalTable, false},
}

// TestReach makes a host for every mode, backend and policy, asks everything of
// its table at once, and then takes all containers away.
func TestReach(t *testing.T) {
	for mode := range reachModes {
		for _, f := range firewalls {
			t.Run(mode+"/"+f.String(), func(t *testing.T) {
				t.Parallel()
				newReachLab(t, mode, f).walk()
			})
		}
	}
}

// TestReachBridgeFilter has the kernel show bridged frames to the firewall, as
// on a node of Kubernetes: nothing may change by that.
func TestReachBridgeFilter(t *testing.T) {
	for _, f := range []firewall{{"nftables", "ACCEPT"}, {"iptables", "DROP"}} {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			l := newReachLab(t, "nat", f)
			if !l.bridgeFilter("", "1") {
				t.Skip("this kernel has no br_netfilter")
			}
			l.walk()
		})
	}
}

func (l *reachLab) walk() {
	before := l.rules()
	// The last one to go of a network has no ports, and must leave no rule
	// either. Other has ports of its own, or its network would have no rules in
	// mode open: FORWARD's policy would hold for it, as it does with the
	// reference bridge plugin.
	all := []chain{
		l.container(reachNetworks[1], "other", published("9090")),
		l.container(reachNetworks[0], "server", reachPorts),
		l.container(reachNetworks[0], "sibling", ""),
	}
	for i, c := range all {
		all[i] = l.add(c)
	}
	for _, c := range all {
		l.verify(c)
	}
	l.answer("server", 80, 81)
	l.answer("neighbour", 8080)
	l.wayOut()
	l.ask(l.expected())
	for _, c := range all {
		l.del(c)
	}
	for _, c := range all { // the guard of a bridge goes with the bridge
		for _, part := range c {
			l.must(part.with(edit(l.t, part.stdin, keys{"cni.dev/valid-attachments": rawJSON("[]")})).as("GC"))
		}
	}
	if diff := cmp.Diff(before, l.rules()); diff != "" {
		l.t.Errorf("the rules are not as before the first container (-before +now):\n%s", diff)
	}
}

// expected returns every probe of the mode's tables. A port is asked by TCP and
// UDP.
func (l *reachLab) expected() []probe {
	l.t.Helper()
	m := reachModes[l.mode]
	var all []probe
	for _, is6 := range []bool{false, true} {
		table := parseTable(l.t, m.table(is6), is6)
		if l.forward == "DROP" && (l.backend == "nftables" || m.chained) {
			table = table.but(parseTable(l.t, forwardDropTable, is6))
		}
		for c, want := range table {
			if want == "-" {
				continue
			}
			to, server := l.target(c.what, is6)
			for _, protocol := range protocols(c.what) {
				all = append(all, probe{c.client, c.what, protocol, to, server, want})
			}
		}
	}
	return all
}

// reachTable is a table of one family.
type reachTable map[cell]string

type cell struct{ client, what string }

// but takes from another table what is not "=" there.
func (t reachTable) but(o reachTable) reachTable {
	for c, want := range o {
		if want != "=" {
			t[c] = want
		}
	}
	return t
}

func parseTable(t testing.TB, text string, is6 bool) reachTable {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(text), "\n")
	columns := strings.Fields(lines[0])
	table := reachTable{}
	for _, line := range lines[1:] {
		row := strings.Fields(line)
		if len(row) != len(columns)+1 {
			t.Fatalf("table: %d cells for %d columns: %s", len(row)-1, len(columns), line)
		}
		for i, what := range columns {
			want, want6, differs := strings.Cut(row[i+1], "/")
			if is6 && differs {
				want = want6
			}
			table[cell{row[0], what}] = want
		}
	}
	return table
}

func protocols(what string) []string {
	if what == "ping" {
		return []string{"icmp"}
	}
	return []string{"tcp", "udp"}
}

// target is what a column stands for, and the server that is to answer there.
func (l *reachLab) target(what string, is6 bool) (to netip.AddrPort, server string) {
	l.t.Helper()
	at := func(v4, v6 string, port uint16) netip.AddrPort { return netip.AddrPortFrom(pick(is6, v6, v4), port) }
	direct := l.addressOf("server", is6)
	switch what {
	case "ping":
		return netip.AddrPortFrom(direct, 0), "server"
	case "pub":
		return netip.AddrPortFrom(direct, 80), "server"
	case "unpub":
		return netip.AddrPortFrom(direct, 81), "server"
	case "any":
		return netip.AddrPortFrom(hostAddr(is6), 8080), "server"
	case "gw":
		return at(reachNetworks[0].gateway4, reachNetworks[0].gateway6, 8080), "server"
	case "spec":
		return at(specific4, specific6, 8081), "server"
	case "wrong":
		return netip.AddrPortFrom(hostAddr(is6), 8081), "server"
	case "any127":
		return at("127.0.0.1", "::1", 8080), "server"
	case "lo":
		return at("127.0.0.1", "::1", 8082), "server"
	case "away":
		return netip.AddrPortFrom(l.addressOf("neighbour", is6), 8080), "neighbour"
	}
	l.t.Fatalf("table: no column %q", what)
	return netip.AddrPort{}, ""
}
