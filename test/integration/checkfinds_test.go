package integration

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

// closedNet is a network with everything that CHECK can find wrong.
const closedNet = `{
	"cniVersion": "1.1.0", "name": "net", "type": "bridge-ln", "bridge": "br0",
	"gatewayMode": "nat", "macspoofchk": true, "mtu": 1400, "capabilities": {"portMappings": true},
	"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]},
	"ipam": {"type": "ipam-ln", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]]}
}`

// change is one change that the operator made by hand.
type change struct {
	name string
	keys keys // of the configuration that differ
	do   func(h *host)
	want string // in CHECK's message
	// mended says that the next ADD of the network puts it right for the others,
	// too; healed, that STATUS does.
	mended, healed bool
}

func changes() []change {
	inside := func(do func(h *host, eth0 netlink.Link)) func(*host) {
		return func(h *host) {
			h.in(netnsPath("c1"), func() {
				l, err := netlink.LinkByName("eth0")
				h.check(err)
				do(h, l)
			})
		}
	}
	onLink := func(name string, do func(netlink.Link) error) func(*host) {
		return func(h *host) {
			l, err := netlink.LinkByName(name)
			h.check(err)
			h.check(do(l))
		}
	}
	addr := func(s string) *netlink.Addr {
		a, _ := netlink.ParseAddr(s)
		return a
	}
	port := func(do func(netlink.Link) error) func(*host) {
		return func(h *host) { onLink(h.hostEnd(), do)(h) }
	}
	return []change{
		{name: "address removed", want: "10.1.0.2/24", do: inside(func(h *host, l netlink.Link) { h.check(netlink.AddrDel(l, addr("10.1.0.2/24"))) })},
		{name: "IPv6 address removed", want: "fd01::2/64", do: inside(func(h *host, l netlink.Link) { h.check(netlink.AddrDel(l, addr("fd01::2/64"))) })},
		{name: "default route removed", want: "0.0.0.0/0", do: inside(func(h *host, _ netlink.Link) { h.delRoute("0.0.0.0/0") })},
		{name: "default route changed", want: "0.0.0.0/0", do: inside(func(h *host, _ netlink.Link) {
			h.delRoute("0.0.0.0/0")
			h.route("", "0.0.0.0/0", "10.1.0.77")
		})},
		{name: "interface down", want: "eth0", do: inside(func(h *host, l netlink.Link) { h.check(netlink.LinkSetDown(l)) })},
		{name: "interface removed", want: "eth0", do: inside(func(h *host, l netlink.Link) { h.check(netlink.LinkDel(l)) })},
		{name: "interface renamed", want: "eth0", do: inside(func(h *host, l netlink.Link) {
			h.check(netlink.LinkSetDown(l))
			h.check(netlink.LinkSetName(l, "mine"))
		})},
		{name: "MAC changed", want: "02:00:00:00:00:99", do: inside(func(h *host, l netlink.Link) {
			h.check(netlink.LinkSetHardwareAddr(l, []byte{2, 0, 0, 0, 0, 0x99}))
		})},
		{name: "host end down", want: "is down", do: port(netlink.LinkSetDown)},
		{name: "host end left the bridge", want: "not a port of br0", healed: true, do: port(netlink.LinkSetNoMaster)},
		{name: "hairpin off", want: "hairpin", do: port(func(l netlink.Link) error { return netlink.LinkSetHairpin(l, false) })},
		{name: "bridge down", want: "br0 is down", healed: true, do: onLink("br0", netlink.LinkSetDown)},
		{name: "gateway removed", want: "10.1.0.1/24", mended: true, do: onLink("br0", func(l netlink.Link) error { return netlink.AddrDel(l, addr("10.1.0.1/24")) })},
		{name: "tables flushed", want: "table inet libnet", healed: true, do: func(h *host) { h.nft("flush ruleset") }},
		{name: "bridge deleted", want: "br0: not found", healed: true, do: onLink("br0", netlink.LinkDel)},
		{name: "rule changed", want: `closed "all else": is not what was written`, healed: true, do: func(h *host) { h.openClosed() }},
		{name: "chain flushed", want: "no other source", do: func(h *host) { h.nft("flush chain bridge libnet prerouting") }},
		{name: "rules of a chain flushed", want: "closed", healed: true, do: func(h *host) { h.nft("flush chain inet libnet closed") }},
		{name: "masquerade element deleted", want: "masquerade4 { 10.1.0.2 . br0 }", do: func(h *host) { h.nft("flush set inet libnet masquerade4") }},
		{name: "port element deleted", want: "anyport6 { tcp . 8080", do: func(h *host) { h.nft("flush map inet libnet anyport6") }},
		{name: "network element deleted", want: "closed { ipv4 . br0 }", healed: true, do: func(h *host) { h.nft("flush set inet libnet closed") }},
		{name: "table dormant", want: "dormant", healed: true, do: func(h *host) { h.nft("add table inet libnet { flags dormant; }") }},
		{name: "table of frames dormant", want: "dormant", healed: true, do: func(h *host) { h.nft("add table bridge libnet { flags dormant; }") }},
		{name: "rule in marks", want: "marks", healed: true, do: func(h *host) { h.nft("add rule inet libnet marks accept") }},
		{name: "chain in our table", want: "theirs", healed: true, do: func(h *host) {
			h.nft("add chain inet libnet theirs { type filter hook forward priority -20; policy drop; }")
		}},
		{name: "policy changed", want: "forward", healed: true, do: func(h *host) {
			h.nft("add chain inet libnet forward { type filter hook forward priority -1; policy drop; }")
		}},
		{name: "iptables flushed", want: "LIBNET", mended: true, keys: keys{"backend": "iptables", "macspoofchk": nil}, do: func(h *host) {
			for _, tool := range []string{"iptables", "ip6tables"} {
				for _, table := range []string{"filter", "nat", "raw"} {
					h.exec(tool, "-t", table, "-F")
				}
			}
		}},
		{name: "lease gone", want: "10.1.0.2", do: func(h *host) { h.check(os.Remove(leaseDir + "/10.1.0.2")) }},
		{name: "forwarding off", healed: true, do: func(h *host) { h.check(os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0)) }},
	}
}

// CHECK names each single thing that was changed by hand. STATUS succeeds as an
// ADD would, and puts back what an ADD would.
func TestCheckFinds(t *testing.T) {
	for _, c := range changes() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t)
		})
	}
}

func (c change) test(t *testing.T) {
	h := newHost(t)
	conf := edit(t, closedNet, c.keys)
	a := attachment("bridge-ln", "c1", h.netns("c1"), conf)
	a.stdin = edit(t, a.stdin, keys{"prevResult": raw(h.must(a.as("ADD")).stdout)})
	status := call{plugin: "bridge-ln", command: "STATUS", stdin: conf}
	h.must(a.as("CHECK"))
	h.must(status)
	c.do(h)
	if r := h.run(a.as("CHECK")); c.want != "" && (r.code != 103 || !strings.Contains(r.msg, c.want)) {
		t.Errorf("CHECK: code %d, %q; want code 103 and %q", r.code, r.msg, c.want)
	}
	if r := h.run(status); r.code != 0 || r.stderr != "" {
		t.Errorf("STATUS: code %d, %q, %q; want success: an ADD would", r.code, r.msg, r.stderr)
	}
	if c.healed {
		h.must(a.as("CHECK"))
	}
	if !c.mended && !c.healed {
		h.must(a.as("DEL"))
		return
	}
	h.must(attachment("bridge-ln", "c2", h.netns("c2"), edit(t, conf, keys{"runtimeConfig": nil})).as("ADD"))
	h.must(a.as("CHECK"))
	h.must(status)
}

// openClosed has the last rule of chain closed accept, under its comment.
func (h *host) openClosed() {
	h.t.Helper()
	out, err := exec.Command("nft", "-a", "list", "chain", "inet", "libnet", "closed").Output()
	h.check(err)
	_, handle, ok := strings.Cut(string(out), `drop comment "all else" # handle `)
	if !ok {
		h.t.Fatalf("no rule \"all else\":\n%s", out)
	}
	handle, _, _ = strings.Cut(handle, "\n")
	h.nft("replace rule inet libnet closed handle " + handle + ` accept comment "all else"`)
}

// hostEnd is the name of the host's end of the only attachment.
func (h *host) hostEnd() string {
	h.t.Helper()
	links, err := netlink.LinkList()
	h.check(err)
	for _, l := range links {
		if l.Type() == "veth" {
			return l.Attrs().Name
		}
	}
	h.t.Fatal("no veth on the host")
	return ""
}

func (h *host) delRoute(dst string) {
	h.t.Helper()
	to, err := netlink.ParseIPNet(dst)
	h.check(err)
	h.check(netlink.RouteDel(&netlink.Route{Dst: to}))
}

func (h *host) nft(command string) {
	h.t.Helper()
	h.exec("nft", strings.Fields(command)...)
}

// exec runs a program of the system and returns what it prints.
func (h *host) exec(program string, args ...string) string {
	h.t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s %v: %v: %s", program, args, err, out)
	}
	return string(out)
}

// A network that moves from one backend to the other takes its living
// containers along, and nothing stays behind.
func TestBackendSwitch(t *testing.T) {
	for _, way := range [][2]string{{"nftables", "iptables"}, {"iptables", "nftables"}, {"auto", "iptables"}} {
		t.Run(way[0]+" to "+way[1], func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			lab := &reachLab{host: h, firewall: firewall{backend: "iptables", forward: "ACCEPT"}}
			lab.prime() // once made, iptables keeps its tables
			before := lab.rules()
			old := edit(t, closedNet, keys{"macspoofchk": nil, "backend": way[0]})
			now := edit(t, old, keys{"backend": way[1]})
			c1 := attachment("bridge-ln", "c1", h.netns("c1"), old)
			prev := raw(h.must(c1.as("ADD")).stdout)
			c2 := attachment("bridge-ln", "c2", h.netns("c2"), edit(t, now, keys{"runtimeConfig": nil}))
			h.must(c2.as("ADD"))
			moved := c1.with(edit(t, now, keys{"prevResult": prev}))
			h.must(moved.as("CHECK"))
			if got := h.exec("cat", "/proc/sys/net/ipv4/conf/br0/route_localnet"); got != "1\n" {
				t.Errorf("route_localnet is %q, and c1 has a port on 127.0.0.1", got)
			}
			nft := strings.Contains(h.exec("nft", "list", "ruleset"), "net/c1/eth0")
			ipt := strings.Contains(h.exec("iptables-save"), "net/c1/eth0")
			if nft != (way[1] == "iptables") || ipt != (way[1] == "nftables") { // each stays where it was made
				t.Errorf("rules of c1 in nftables: %v, in iptables: %v", nft, ipt)
			}
			h.must(moved.as("DEL"))
			h.must(c2.as("DEL"))
			h.must(c2.with(edit(t, now, keys{"cni.dev/valid-attachments": rawJSON("[]")})).as("GC"))
			if diff := cmp.Diff(before, lab.rules()); diff != "" {
				t.Errorf("rules (-before +after):\n%s", diff)
			}
		})
	}
}
