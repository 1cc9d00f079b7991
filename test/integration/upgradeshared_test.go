package integration

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

// sharedMode is what one of two networks asks of the bridge that they share.
type sharedMode struct {
	name  string
	keys  keys
	ports bool // the container publishes one
	open  bool // outside reaches the container's own address
	shut  bool // it reaches nothing of it
}

var sharedModes = []sharedMode{
	{name: "nat", keys: keys{"gatewayMode": "nat", "ipMasq": true}, ports: true},
	{name: "routed", keys: keys{"gatewayMode": "routed"}, ports: true, open: true},
	{name: "internal", keys: keys{"internal": true, "isDefaultGateway": nil}, shut: true},
	{name: "absent", keys: keys{"ipMasq": true}, open: true},
	{name: "noicc", keys: keys{"icc": false}, open: true},
	{name: "trusting", keys: keys{"gatewayMode": "nat", "trustedInterfaces": []string{"uplink"}, "acceptFwMark": "0x7"}, ports: true, open: true},
}

// sharedPair is two networks of the previous release's on the bridge "brs".
type sharedPair struct {
	backend string
	modes   [2]sharedMode
}

func (p sharedPair) String() string {
	return p.backend + " " + p.modes[0].name + " and " + p.modes[1].name
}

func (p sharedPair) call(t *testing.T, i int) call {
	number, m := fmt.Sprint(71+i), p.modes[i]
	conf := `{"cniVersion": "1.1.0", "type": "bridge-ln", "bridge": "brs", "isDefaultGateway": true, "capabilities": {"portMappings": true}, "ipam": {"type": "ipam-ln"}}`
	conf = edit(t, conf, keys{"name": "net" + number, "backend": p.backend, "ipam.ranges": []any{[]any{
		keys{"subnet": "10.71.0.0/24", "rangeStart": "10.71.0." + number, "rangeEnd": "10.71.0.1" + number, "gateway": "10.71.0.1"},
	}}})
	if !m.shut {
		conf = edit(t, conf, keys{"isGateway": true})
	}
	if m.ports {
		conf = edit(t, conf, keys{"runtimeConfig": keys{"portMappings": []any{
			keys{"hostPort": 8081 + i, "containerPort": flowPort, "protocol": "tcp"}, keys{"hostPort": 8081 + i, "containerPort": flowPort, "protocol": "udp"},
		}}})
	}
	conf = edit(t, conf, m.keys)
	if m.shut {
		conf = edit(t, conf, keys{"isGateway": true})
	}
	return attachment("bridge-ln", "c"+number, netnsPath("c"+number), conf)
}

// sharedRenewals are the first calls of the new release.
var sharedRenewals = []struct {
	name string
	call func(h *host, both [2]call)
}{
	{"STATUS of the first", func(h *host, both [2]call) { h.must(both[0].as("STATUS")) }},
	{"STATUS of the second", func(h *host, both [2]call) { h.must(both[1].as("STATUS")) }},
	{"repair", func(h *host, _ [2]call) { h.exec(program(h.t, "lnctl"), "repair") }},
	{"ADD to the first", func(h *host, both [2]call) { h.must(both[0].as("ADD")) }},
	{"ADD to the second", func(h *host, both [2]call) { h.must(both[1].as("ADD")) }},
	{"GC", func(h *host, both [2]call) {
		for _, c := range both {
			valid := []any{keys{"containerID": c.cid, "ifname": "eth0"}}
			h.must(call{plugin: "bridge-ln", command: "GC", stdin: edit(h.t, c.stdin, keys{"cni.dev/valid-attachments": valid})})
		}
		h.must(both[0].as("STATUS"))
	}},
}

// After an upgrade a bridge of several networks has the rules that it has on a host
// where the new release attached the same containers, and nothing else: what its
// networks of the previous release had closed, each under its own name, is in the
// guard. The strictest of them wins, and established connections go on.
func TestUpgradeOfSharedBridge(t *testing.T) {
	old := buildPrevious(t)
	first := 0
	for _, backend := range []string{"nftables", "iptables"} {
		for i, a := range sharedModes {
			for j, b := range sharedModes {
				if i == j {
					continue
				}
				p := sharedPair{backend, [2]sharedMode{a, b}}
				renewals := sharedRenewals[first%len(sharedRenewals):][:1]
				if a.name == "nat" && b.name == "routed" {
					renewals = sharedRenewals
				}
				first++
				for _, renewal := range renewals {
					t.Run(p.String()+", "+renewal.name, func(t *testing.T) {
						t.Parallel()
						testSharedUpgrade(t, old, p, renewal.call)
					})
				}
			}
		}
	}
}

func testSharedUpgrade(t *testing.T, old string, p sharedPair, renew func(*host, [2]call)) {
	want := attachedByThis(t, p)
	h := newHost(t)
	h.world()
	// By iptables the previous release may have left the bridge open, with no rule about
	// connections: until there is one, the kernel tracks none, and an answer on its way
	// is of no connection.
	h.nft("add table ip tracked")
	h.nft("add chain ip tracked forward { type filter hook forward priority -200 ; }")
	h.nft("add rule ip tracked forward ct state new counter")
	world := netnsPath("world")
	echoBack(t, world)
	closed := newProber(t, world)
	var both [2]call
	var addrs [2]netip.Addr
	checks := make([]call, 2)
	for i := range both {
		both[i] = p.call(t, i)
		ns := h.netns(both[i].cid)
		r := h.runProgram(old+"/bridge-ln", both[i].as("ADD"))
		if r.code != 0 {
			t.Fatalf("ADD by the previous release: %s", r.msg)
		}
		addrs[i] = h.theAddress(r)
		checks[i] = both[i].with(edit(t, both[i].stdin, keys{"prevResult": raw(r.stdout)})).as("CHECK")
		h.route(world, netip.PrefixFrom(addrs[i], 24).Masked().String(), hostAddr(false).String())
		echoBack(t, ns)
	}
	var flows []*flow
	shut := p.modes[0].shut || p.modes[1].shut
	for i, m := range p.modes {
		to := netip.AddrPortFrom(addrs[i], flowPort).String()
		if shut && p.backend == "nftables" {
			closed.add(to)
			continue
		}
		if p.backend == "nftables" && !p.modes[0].open && !p.modes[1].open {
			closed.add(to)
		}
		if !shut && m.ports && m.name != "routed" {
			flows = append(flows, newFlow(t, "outside to a port of "+m.name, world, hostAddr(false).String()+":"+fmt.Sprint(8081+i))...)
		}
		if !shut {
			flows = append(flows, newFlow(t, m.name+" to outside", netnsPath(both[i].cid), netip.AddrPortFrom(worldAddr(false), flowPort).String())...)
		}
	}
	run := startAll(t, flows, closed)
	links := h.bridgePorts()
	renew(h, both)
	if diff := cmp.Diff(want, h.allRules()); diff != "" {
		t.Errorf("the rules are not those of a host of this release (-want +got):\n%s", diff)
	}
	for i, c := range checks {
		if r := h.run(c); r.code != 0 {
			t.Errorf("CHECK of %s: code %d: %s", p.modes[i].name, r.code, r.msg)
		}
	}
	for _, c := range both {
		h.must(c.as("ADD"))
	}
	if diff := cmp.Diff(links, h.bridgePorts()); diff != "" {
		t.Errorf("a repeated ADD has replaced a living container (-before +now):\n%s", diff)
	}
	run.stop()
	for _, c := range both {
		h.must(c.as("DEL"))
	}
	for _, c := range both {
		h.must(call{plugin: "bridge-ln", command: "GC", stdin: edit(t, c.stdin, keys{"cni.dev/valid-attachments": []string{}})})
	}
	h.nothingOfRules()
}

// attachedByThis returns the rules of a host where this release attached both.
func attachedByThis(t *testing.T, p sharedPair) []string {
	h := newHost(t)
	h.world()
	for i := range 2 {
		c := p.call(t, i)
		h.netns(c.cid)
		h.must(c.as("ADD"))
	}
	return h.allRules()
}

var savedCounters = regexp.MustCompile(`\[\d+:\d+\]|^#.*`)

// directly matches a port of a container that may be reached by its own address: it
// says nothing where the guard of the bridge does not ask for it, and may be there.
var directly = regexp.MustCompile(`^nft 1 libnet set open\w+ element`)

// allRules are our tables, and the rules of iptables for IPv4 in their order.
func (h *host) allRules() []string {
	h.t.Helper()
	all, err := nftLines()
	h.check(err)
	all = slices.DeleteFunc(all, func(line string) bool { return !strings.Contains(line, " libnet") || directly.MatchString(line) })
	slices.Sort(all)
	out, err := exec.Command("iptables-save").Output()
	h.check(err)
	for _, line := range strings.Split(string(out), "\n") {
		if line = savedCounters.ReplaceAllString(line, ""); strings.Contains(line, "LIBNET") {
			all = append(all, line)
		}
	}
	return all
}

// bridgePorts returns the ports of the bridge "brs", with their numbers.
func (h *host) bridgePorts() (all []string) {
	h.t.Helper()
	br, err := netlink.LinkByName("brs")
	h.check(err)
	links, err := netlink.LinkList()
	h.check(err)
	for _, l := range links {
		if l.Attrs().MasterIndex == br.Attrs().Index {
			all = append(all, fmt.Sprint(l.Attrs().Index, " ", l.Attrs().Name))
		}
	}
	return all
}

// nothingOfRules fails the test if an element, a rule or a record of ours is left.
func (h *host) nothingOfRules() {
	h.t.Helper()
	for _, line := range h.allRules() {
		if strings.Contains(line, "libnet:") || strings.Contains(line, "libnet-") {
			h.t.Errorf("left: %s", line)
		}
	}
	left, err := filepath.Glob("/run/libnet/networks/*/endpoints/*")
	if err != nil || len(left) > 0 {
		h.t.Errorf("left: %v, %v", left, err)
	}
}
