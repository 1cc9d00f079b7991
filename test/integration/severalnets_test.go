package integration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// The remote machine is behind the host's default route. It answers with the
// source that it sees, and so tells by which network a container got there:
// network "a" has 10.41.0.0/24 and fd41::/64, network "b" has 42.
const (
	remote4, remote6 = "198.51.100.9", "2001:db8:9::9"
	remotePort       = 7007
)

// severalNet is a network without masquerading, so that a container's own
// address is seen outside.
func severalNet(t *testing.T, name, family string, k keys) string {
	t.Helper()
	number := map[string]int{"a": 41, "b": 42}[name]
	conf := fmt.Sprintf(`{"cniVersion": "1.1.0", "name": %q, "type": "bridge-ln", "bridge": "br-%s", "isDefaultGateway": true, "ipam": {"type": "ipam-ln"}}`, name, name)
	v4, v6 := fmt.Sprintf(`[{"subnet":"10.%d.0.0/24"}]`, number), fmt.Sprintf(`[{"subnet":"fd%d::/64"}]`, number)
	return edit(t, edit(t, conf, sets(map[string][]string{"v4": {v4}, "v6": {v6}, "dual": {v4, v6}}[family]...)), k)
}

// internalNet has a default route, but no way out.
func internalNet(k keys) keys {
	out := keys{"internal": true, "isDefaultGateway": nil, "isGateway": true}
	for key, v := range k {
		out[key] = v
	}
	return out
}

// severalCase is two attachments of one container: "a" on eth0, "b" on net1.
type severalCase struct {
	name  string
	a, b  keys
	twice bool   // both are of network "a", on eth0 and net1
	wins  string // "a" or "b"; "b" of one network twice is net1
	none  bool   // the winner has no way out
	after bool   // what is left when the winner has gone has one
}

var severalCases = []severalCase{
	{name: "tie", wins: "a", after: true},
	{name: "priority", b: keys{"gwPriority": 5}, wins: "b", after: true},
	{name: "priority below", a: keys{"gwPriority": -2147483648}, wins: "b", after: true},
	{name: "both", a: keys{"gwPriority": 3}, b: keys{"gwPriority": 4}, wins: "b", after: true},
	{name: "args", a: keys{"gwPriority": 3}, b: keys{"args": raw(`{"cni":{"gwPriority":4}}`)}, wins: "b", after: true},
	{name: "capability", a: keys{"gwPriority": 3}, b: keys{"args": raw(`{"cni":{"gwPriority":1}}`), "runtimeConfig": raw(`{"gwPriority":2147483647}`)}, wins: "b", after: true},
	{name: "internal", a: internalNet(nil), wins: "b"},
	{name: "internal told so", b: internalNet(keys{"gwPriority": 1}), wins: "b", none: true, after: true},
	{name: "twice", twice: true, wins: "a", after: true},
	{name: "twice, priority", twice: true, b: keys{"args": raw(`{"cni":{"gwPriority":1}}`)}, wins: "b", after: true},
}

// Which network of a container is its way out follows from what the networks
// say, not from the order of ADDs: two networks, or one twice, each family, each
// order. CHECK and a repeated ADD know of both, and when the first goes the other
// takes its place.
func TestSeveralNetworks(t *testing.T) {
	for _, c := range severalCases {
		for _, family := range []string{"v4", "v6", "dual"} {
			t.Run(c.name+"/"+family, func(t *testing.T) {
				t.Parallel()
				h := newHost(t)
				h.remote()
				for i, order := range []string{"ab", "ba", "at once"} {
					c.test(t, h, family, order, fmt.Sprint("c", i))
				}
			})
		}
	}
}

func (c severalCase) test(t *testing.T, h *host, family, order, cid string) {
	ns := h.netns(cid)
	second := "b"
	if c.twice {
		second = "a"
	}
	calls := map[string]call{
		"a": attachment("bridge-ln", cid, ns, c.conf(t, "a", family, c.a)),
		"b": attachment("bridge-ln", cid, ns, c.conf(t, second, family, c.b)),
	}
	b := calls["b"]
	b.ifName = "net1"
	calls["b"] = b
	added := map[string]string{}
	if order == "at once" {
		replies := h.atOnce([]call{calls["a"].as("ADD"), calls["b"].as("ADD")})
		added["a"], added["b"] = replies[0].stdout, replies[1].stdout
	} else {
		for _, net := range strings.Split(order, "") {
			added[net] = h.must(calls[net].as("ADD")).stdout
		}
	}
	links := h.indexes(ns)
	steady := func(nets ...string) {
		t.Helper()
		for _, net := range nets {
			h.must(calls[net].with(edit(t, calls[net].stdin, keys{"prevResult": raw(added[net])})).as("CHECK"))
			if diff := cmp.Diff(added[net], h.must(calls[net].as("ADD")).stdout); diff != "" {
				t.Errorf("%s: a repeated ADD of %s (-first +second):\n%s", order, net, diff)
			}
		}
	}
	steady("a", "b")
	if said := h.doctor(); strings.Contains(said, "differ") {
		t.Errorf("%s: doctor: %s", order, said)
	}
	if now := h.indexes(ns); now != links {
		t.Errorf("%s: repeated ADDs made links anew: %s before, %s now", order, links, now)
	}
	h.leadsOut(t, order, ns, added[c.wins], !c.none)
	loses := map[string]string{"a": "b", "b": "a"}[c.wins]
	h.must(calls[c.wins].as("DEL"))
	steady(loses)
	h.leadsOut(t, order+", without the first", ns, added[loses], c.after)
	added[c.wins] = h.must(calls[c.wins].as("ADD")).stdout
	steady("a", "b")
	h.leadsOut(t, order+", with the first again", ns, added[c.wins], !c.none)
	h.must(calls["a"].as("DEL"))
	h.must(calls["b"].as("DEL"))
}

func (c severalCase) conf(t *testing.T, name, family string, k keys) string {
	t.Helper()
	conf := severalNet(t, name, family, k)
	if _, internal := k["internal"]; internal {
		routes := map[string]string{"v4": `[{"dst":"0.0.0.0/0"}]`, "v6": `[{"dst":"::/0"}]`, "dual": `[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]`}
		conf = edit(t, conf, keys{"ipam.routes": raw(routes[family])})
	}
	return conf
}

// remote gives the host a way out to the remote machine, which knows the way to
// the containers and answers with the source that it sees.
func (h *host) remote() {
	h.t.Helper()
	world := h.netns("world")
	h.check(lntest.NoDAD())
	lntest.Wire(h.t, "uplink", h.open(world), func() error {
		return errors.Join(lntest.Up("eth0", "192.0.2.2/24", "2001:db8::2/64"), lntest.Up("lo", remote4+"/32", remote6+"/128"), lntest.Via("192.0.2.1", "2001:db8::1"))
	})
	h.check(errors.Join(lntest.Up("uplink", "192.0.2.1/24", "2001:db8::1/64"), lntest.Via("192.0.2.2", "2001:db8::2")))
	lntest.Serve(h.t, h.open(world), remotePort)
}

// open returns a path of a namespace for threads that are not in the host's mount
// namespace.
func (h *host) open(ns string) string {
	h.t.Helper()
	f, err := os.Open(ns)
	h.check(err)
	h.t.Cleanup(func() { _ = f.Close() })
	return fmt.Sprintf("/proc/self/fd/%d", f.Fd())
}

// indexes are those of the links in a namespace.
func (h *host) indexes(ns string) string {
	h.t.Helper()
	var all []string
	h.in(ns, func() {
		links, err := netlink.LinkList()
		h.check(err)
		for _, l := range links {
			all = append(all, fmt.Sprint(l.Attrs().Name, " ", l.Attrs().Index))
		}
	})
	return strings.Join(all, ", ")
}

// leadsOut has the container ask the remote machine, which must see the address
// of an ADD's result, or must not hear of it.
func (h *host) leadsOut(t *testing.T, when, ns, added string, reached bool) {
	t.Helper()
	for _, p := range parseResult(t, added).addresses(t) {
		to := remote4
		if p.Addr().Is6() {
			to = remote6
		}
		patience := lntest.WaitForAnswer
		if !reached {
			patience = lntest.WaitForNone
		}
		answer, err := lntest.Ask(t, h.open(ns), "tcp", net.JoinHostPort(to, fmt.Sprint(remotePort)), patience)
		want := fmt.Sprint(remotePort, " ", p.Addr())
		if reached && answer != want {
			t.Errorf("%s: %s answers %q, %v; want %q", when, to, answer, err, want)
		}
		if !reached && err == nil {
			t.Errorf("%s: %s answers %q, want nothing", when, to, answer)
		}
	}
}

// With strict reverse path filters on the host and in the container, a published
// port of the network that is not the way out answers, also once the container
// has talked on the other one.
func TestStrictReversePath(t *testing.T) {
	for _, order := range []string{"ab", "ba", "at once"} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.remote()
			ns := h.netns("c1")
			for _, in := range []string{"", ns} {
				h.in(in, func() {
					h.check(lntest.Sysctl("ipv4/conf/default/rp_filter", "1"))
					h.check(lntest.Sysctl("ipv4/conf/all/rp_filter", "0"))
				})
			}
			lntest.Serve(t, h.open(ns), 80)
			lntest.Serve(t, h.open("/proc/thread-self/ns/net"), 81)
			ports := keys{"gatewayMode": "nat", "isDefaultGateway": nil, "runtimeConfig": raw(`{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}`)}
			calls := map[string]call{
				"a": attachment("bridge-ln", "c1", ns, severalNet(t, "a", "v4", keys{"gatewayMode": "nat", "isDefaultGateway": nil})),
				"b": attachment("bridge-ln", "c1", ns, severalNet(t, "b", "v4", ports)), // the published one is not the way out
			}
			b := calls["b"]
			b.ifName = "net1"
			calls["b"] = b
			if order == "at once" {
				h.atOnce([]call{calls["a"].as("ADD"), calls["b"].as("ADD")})
			} else {
				for _, net := range strings.Split(order, "") {
					h.must(calls[net].as("ADD"))
				}
			}
			for range 2 {
				if answer, err := lntest.Ask(t, h.open(netnsPath("world")), "tcp", "192.0.2.1:8080", lntest.WaitForAnswer); answer != "80 192.0.2.2" {
					t.Errorf("published port: %q, %v", answer, err)
				}
				for _, gateway := range []string{"10.41.0.1", "10.42.0.1"} { // its neighbour table is filled then
					if answer, err := lntest.Ask(t, h.open(ns), "udp", gateway+":81", lntest.WaitForAnswer); err != nil {
						t.Errorf("gateway %s: %q, %v", gateway, answer, err)
					}
				}
			}
			for _, bridge := range []string{"br-a", "br-b"} {
				if got, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + bridge + "/rp_filter"); string(got) != "2\n" {
					t.Errorf("rp_filter of %s is %q, %v", bridge, got, err)
				}
			}
			h.must(attachment("bridge-ln", "c2", h.netns("c2"), edit(t, severalNet(t, "a", "v4", nil), keys{"name": "c", "bridge": "br-c", "ipam.ranges": raw(`[[{"subnet":"10.43.0.0/24"}]]`)})).as("ADD"))
			if got, err := os.ReadFile("/proc/sys/net/ipv4/conf/br-c/rp_filter"); string(got) != "1\n" {
				t.Errorf("rp_filter of the bridge of a container with one network is %q, %v", got, err)
			}
		})
	}
}
