package main

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/firewall/admit"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
)

// drop is a fault that drops packets, of which trace is to say where, why, and what to do.
type drop struct {
	of    string
	plant func(*lab) // nil: it is the configuration of a network
	args  string     // of trace
	says  []string
}

// wantDrops is how many different drops are to be explained, at least.
const wantDrops = 50

// populateModes makes networks of other modes beside those of populate:
//
//	inner    10.34.0.0/24, internal            c5
//	alone    10.35.0.0/24, icc false           c6, c7
//	hidden   10.36.0.0/24, isolated            c8
//	checked  10.37.0.0/24, macspoofchk         c9
//	apart1, apart2  10.38.0.0/24, 10.39.0.0/24, same-bridge  d1, d2
func (l *lab) populateModes() {
	l.t.Helper()
	add := func(name, bridge, subnet string, change func(*model.NetworkConfig), containers ...string) {
		cfg := model.NetworkConfig{Bridge: bridge, Gateway: true, DefaultGateway: true, GatewayModeIPv4: model.GatewayRouted}
		change(&cfg)
		n := l.network(name, cfg, subnet)
		for _, c := range containers {
			l.attach(n, c)
		}
	}
	add("inner", "ln2", "10.34.0.0/24", func(c *model.NetworkConfig) { c.Internal, c.DefaultGateway = true, false }, "c5")
	add("alone", "ln3", "10.35.0.0/24", func(c *model.NetworkConfig) { c.NoICC = true }, "c6", "c7")
	add("hidden", "ln4", "10.36.0.0/24", func(c *model.NetworkConfig) {
		*c = model.NetworkConfig{Bridge: "ln4", GatewayModeIPv4: model.GatewayIsolated}
	}, "c8")
	add("checked", "ln5", "10.37.0.0/24", func(c *model.NetworkConfig) { c.SpoofCheck = true }, "c9")
	same := func(c *model.NetworkConfig) {
		c.IngressPolicy, c.GatewayModeIPv4 = model.IngressSameBridge, ""
	}
	add("apart1", "ln6", "10.38.0.0/24", same, "d1")
	add("apart2", "ln7", "10.39.0.0/24", same, "d2")
}

// in runs ip(8), or another program, in a namespace.
func (l *lab) in(netns, command string, more ...string) {
	l.t.Helper()
	words := append(strings.Fields(command), more...)
	cmd := exec.Command("nsenter", append([]string{"--net=" + netns}, words...)...)
	if netns == "" {
		cmd = exec.Command(words[0], words[1:]...)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// foreign makes a table of another program with one chain.
func (l *lab) foreign(netns, family, name, hook string, rules ...string) {
	l.t.Helper()
	table := fmt.Sprintf("table %s %s {\n chain c {\n type filter hook %s;\n %s\n }\n}\n", family, name, hook, strings.Join(rules, "\n"))
	cmd := exec.Command("nft", "-f", "-")
	if netns != "" {
		cmd = exec.Command("nsenter", "--net="+netns, "nft", "-f", "-")
	}
	cmd.Stdin = strings.NewReader(table)
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("%s: %v\n%s", table, err, out)
	}
}

// hostEnd is the host's end of a container's first interface.
func (l *lab) hostEnd(container string) (name string) {
	l.t.Helper()
	index := 0
	lntest.Enter(l.t, netnsOf(container), func() {
		link, err := netlink.LinkByName("eth0")
		l.must(err)
		index = link.Attrs().ParentIndex
	})
	link, err := netlink.LinkByIndex(index)
	l.must(err)
	return link.Attrs().Name
}

// byLibnet are drops that a configuration asks for.
func byLibnet() []drop {
	return []drop{
		{"a network with published ports only", nil, "c2 10.32.0.2:80", []string{"dropped at forward by the rule \"all else\"", `network "web": only published ports come in`, "publish the port"}},
		{"out of an internal network", func(l *lab) { l.in(netnsOf("c5"), "ip route add default via 10.34.0.1") }, "c5 192.0.2.2", []string{"nothing out of an internal network", `network "inner": it is internal`, "give the container another network"}},
		{"into an internal network", nil, "c2 10.34.0.2", []string{"nothing into an internal network", `network "inner"`, "give the other container this network, too"}},
		{"icc false", nil, "c6 c7", []string{"dropped by bridge ln3", `network "alone" keeps its containers from each other (icc false`}},
		{"networks apart", nil, "d1 d2:80", []string{"networks apart from each other", `network "apart2"`, "attach a container to both, or remove the key"}},
		{"from the host into an isolated network", func(l *lab) { l.in("", "ip addr add 10.36.0.200/24 dev ln4") }, "host c8", []string{"dropped at postrouting", `network "hidden": the host does not reach it`}},
		{"a MAC address that was not given", func(l *lab) { l.in(netnsOf("c9"), "ip link set eth0 address 02:00:00:00:00:77") }, "c9 192.0.2.2", []string{"has the MAC address 02:00:00:00:00:77", "macspoofchk", "ip link set eth0 address 02:00:00:00:00:39"}},
		{"such a one in a frame of IP", func(l *lab) {
			l.in("", "ip neigh replace 10.37.0.2 lladdr 02:00:00:00:00:77 dev ln5")
			l.in(netnsOf("c9"), "ip link set eth0 address 02:00:00:00:00:77")
			l.in(netnsOf("c9"), "ip neigh replace 10.37.0.1 dev eth0 lladdr", l.mac("ln5"))
		}, "c9 192.0.2.2", []string{"no other source MAC than the container's", "table bridge libnet", "(macspoofchk)"}},
		{"a client that sourceRanges does not let in", nil, "c2 192.0.2.1:5000/udp", []string{`port 5000/udp is published for container c1 of network "web" for clients of 192.0.2.0/24 only`, "add it to sourceRanges"}},
		{"another address than hostIP", func(l *lab) { l.in("", "ip addr add 192.0.2.77/32 dev uplink") }, "host 192.0.2.77:5001/udp", []string{"on 192.0.2.1 only, and this asks 192.0.2.77", "use that address, or publish it without hostIP"}},
		{"a NetworkPolicy of the pod that is asked", isolated(admit.In), "c1 c2:80", []string{"table inet libnet-policy", "none lets it in", "an ingress rule"}},
		{"a NetworkPolicy of the pod that asks", isolated(admit.Out), "c2 192.0.2.2:80", []string{"table inet libnet-policy", "none lets it out", "an egress rule"}},
		{"no pod at the address", policies(func(s *admit.Tables) []admit.Elem { return []admit.Elem{s.Home(netip.MustParsePrefix("10.33.0.0/24"))} }), "c1 c2:80", []string{"table inet libnet-policy", "no pod of this host is known at 10.33.0.2"}},
		{"no pod at the port", policies(func(*admit.Tables) []admit.Elem { return nil }), "c3 192.0.2.2", []string{"table bridge libnet-policy", "ln-agent knows no pod behind veth"}},
	}
}

// byOthers are drops by rules of other programs, and by the container's own.
func byOthers() []drop {
	c1, c2 := netnsOf("c1"), netnsOf("c2")
	rule := func(family, hook string, rules ...string) func(*lab) {
		return func(l *lab) { l.foreign("", family, "other", hook, rules...) }
	}
	const foreign = "it is not libnet's; change it there"
	return []drop{
		{"a rule in forward", rule("ip", "forward priority 5", `ip daddr 192.0.2.2 drop comment "no outside"`), "c2 192.0.2.2", []string{`dropped at forward by the rule "no outside" of chain c, table ip other`, foreign}},
		{"a policy of forward", func(l *lab) {
			l.nft("table ip filter {\n chain FORWARD {\n type filter hook forward priority 0; policy drop;\n }\n}\n", "-f", "-")
		}, "c2 192.0.2.2:80", []string{"dropped at forward by the policy of chain FORWARD, table ip filter", foreign}},
		{"a reject in forward", rule("inet", "forward priority 5", "reject with icmpx admin-prohibited"), "c2 192.0.2.2:80", []string{"dropped at forward by the rule reject with icmpx", foreign}},
		{"a rule of raw", rule("inet", "prerouting priority -300", "udp dport 53 drop"), "c2 192.0.2.2:53/udp", []string{"dropped at prerouting by the rule udp dport 53 drop of chain c, table inet other", "nft delete rule inet other c handle 2"}},
		{"a rule of input", rule("ip", "input priority 0", "tcp dport 22 drop"), "c2 192.0.2.1:22", []string{"dropped at input by the rule tcp dport 22 drop", foreign}},
		{"a rule of output", rule("inet", "output priority 0", "ip daddr 10.33.0.2 drop"), "host c2", []string{"dropped at output by the rule ip daddr 10.33.0.2 drop", foreign}},
		{"a rule of postrouting", rule("ip", "postrouting priority 0", `oifname "uplink" drop`), "c2 192.0.2.2", []string{"dropped at postrouting by the rule oifname", foreign}},
		{"what is not tracked, and invalid so", func(l *lab) {
			l.foreign("", "inet", "early", "prerouting priority -300", "notrack")
			l.foreign("", "inet", "other", "forward priority 5", "ct state invalid,untracked drop")
		}, "c2 192.0.2.2:80", []string{"dropped at forward by the rule ct state invalid,untracked drop", foreign}},
		{"ingress of a veth", func(l *lab) {
			l.foreign("", "netdev", "other", "ingress device "+l.hostEnd("c2")+" priority 0", "ip daddr 192.0.2.2 drop")
		}, "c2 192.0.2.2", []string{"dropped at ingress by the rule ip daddr 192.0.2.2 drop of chain c, table netdev other", foreign}},
		{"egress of the uplink", rule("netdev", "egress device uplink priority 0", "ip daddr 192.0.2.2 drop"), "c2 192.0.2.2", []string{"dropped at egress by the rule", "table netdev other", foreign}},
		{"frames that come into a bridge", rule("bridge", "prerouting priority -500", "ip saddr 10.33.0.2 drop"), "c2 192.0.2.2", []string{"dropped at prerouting by the rule", "table bridge other", foreign}},
		{"frames that a bridge forwards", rule("bridge", "forward priority 0", "ip daddr 10.33.0.3 drop"), "c2 c3", []string{"dropped at forward by the rule", "table bridge other", foreign}},
		{"the container's input", func(l *lab) { l.foreign(c1, "ip", "own", "input priority 0", "tcp dport 80 drop") }, "host 192.0.2.1:8080", []string{"dropped at input in container c1 by the rule tcp dport 80 drop", "it is the container's own"}},
		{"the container's output", func(l *lab) { l.foreign(c2, "ip", "own", "output priority 0", "icmp type echo-request drop") }, "c2 192.0.2.2", []string{"dropped at output in container c2 by the rule icmp type echo-request drop", "it is the container's own"}},
		{"the policy of iptables-legacy", func(l *lab) { l.in("", "iptables-legacy -P FORWARD DROP") }, "c2 192.0.2.2", []string{"dropped at forward, and by no rule of nf_tables: so by one of iptables-legacy", "iptables-legacy -t filter -S FORWARD"}},
		{"a rule of iptables-legacy", func(l *lab) { l.in("", "iptables-legacy -A INPUT -p tcp --dport 22 -j DROP") }, "c2 192.0.2.1:22", []string{"dropped at input, and by no rule of nf_tables", "iptables-legacy -t filter -S INPUT"}},
		{"a refusal by iptables-legacy", func(l *lab) { l.in("", "iptables-legacy -A FORWARD -p tcp -j REJECT --reject-with tcp-reset") }, "c2 192.0.2.2:80", []string{"dropped at forward, and by no rule of nf_tables", "iptables-legacy -t filter -S FORWARD"}},
		{"a filter of tc", func(l *lab) {
			end := l.hostEnd("c2")
			l.in("", "tc qdisc add dev "+end+" clsact")
			l.in("", "tc filter add dev "+end+" ingress bpf da bytecode", "1,6 0 0 2")
		}, "c2 192.0.2.2", []string{"tc dropped", "tc filter show dev veth"}},
		{"a queue of tc", func(l *lab) { l.in("", "tc qdisc add dev "+l.hostEnd("c2")+" root tbf rate 8bit burst 10 limit 10") }, "host c2", []string{"tc dropped", "tc -s qdisc show dev veth"}},
	}
}

// byRoutes are drops by the host's routing and settings.
func byRoutes() []drop {
	c2 := netnsOf("c2")
	ip := func(command string) func(*lab) { return func(l *lab) { l.in("", "ip "+command) } }
	const after = "the kernel let it go no further after prerouting: "
	return []drop{
		{"forwarding off on one interface", func(l *lab) { l.sysctl("net/ipv4/conf/ln1/forwarding", "0") }, "c2 192.0.2.2", []string{after + "forwarding is off (net.ipv4.conf.ln1.forwarding = 0): sysctl -w net.ipv4.conf.ln1.forwarding=1"}},
		{"forwarding off", func(l *lab) { l.sysctl("net/ipv4/ip_forward", "0") }, "c2 192.0.2.2", []string{after + "forwarding is off (net.ipv4.ip_forward = 0): sysctl -w net.ipv4.ip_forward=1"}},
		{"forwarding of IPv6 off", func(l *lab) {
			l.in("", "ip addr add fd99::1/64 dev uplink nodad")
			l.sysctl("net/ipv6/conf/all/forwarding", "0")
		}, "c1 fd99::2", []string{after + "forwarding is off (net.ipv6.conf.all.forwarding = 0): sysctl -w net.ipv6.conf.all.forwarding=1"}},
		{"a route blackhole", ip("route add blackhole 198.51.100.0/24"), "c2 198.51.100.1", []string{after + `the route "blackhole 198.51.100.0/24" drops it: ip route del blackhole 198.51.100.0/24`}},
		{"a route unreachable", ip("route add unreachable 198.51.100.0/24"), "c2 198.51.100.1", []string{after, "ip route del unreachable 198.51.100.0/24"}},
		{"a route prohibit of IPv6", ip("route add prohibit fd98::/64"), "c1 fd98::1", []string{after, "ip route del prohibit fd98::/64"}},
		{"a rule of policy routing", ip("rule add from 10.33.0.2 prohibit"), "c2 192.0.2.2", []string{after, `a rule of the kind "prohibit" drops it (policy routing): ip rule shows it`}},
		{"no route", nil, "c2 203.0.113.1", []string{after, "there is no route to 203.0.113.1, not even a default one"}},
		{"the uplink is down", ip("link set uplink down"), "c2 192.0.2.2", []string{"interface uplink, whose subnet 192.0.2.2 is in, is down: ip link set uplink up"}},
		{"rp_filter, and another way back", func(l *lab) {
			l.in("", "ip route add 10.33.0.2/32 via 192.0.2.2")
			l.sysctl("net/ipv4/conf/ln1/rp_filter", "1")
		}, "c2 192.0.2.2", []string{"rp_filter drops what comes in by ln1 (net.ipv4.conf.ln1.rp_filter = 1), as the way back to 10.33.0.2 is by uplink"}},
		{"rp_filter, and no way back", func(l *lab) {
			l.in(c2, "ip addr add 10.99.0.9/32 dev eth0")
			l.in(c2, "ip route replace default via 10.33.0.1 src 10.99.0.9")
			l.sysctl("net/ipv4/conf/ln1/rp_filter", "1")
			l.in(c2, "ip neigh replace 10.33.0.1 dev eth0 lladdr", l.mac("ln1"))
		}, "c2 192.0.2.2", []string{after + "rp_filter drops what comes in by ln1", "there is no way back to 10.99.0.9"}},
		{"the container's address is the host's, too", ip("addr add 10.33.0.2/32 dev lo"), "c2 192.0.2.2", []string{"its source 10.33.0.2 is an address of this host, too", "give one of them another"}},
		{"the TTL is at its end", func(l *lab) { l.in(c2, "sysctl -w net.ipv4.ip_default_ttl=1") }, "c2 192.0.2.2:80", []string{after + "it may pass no more routers (its TTL is 1)", "net.ipv4.ip_default_ttl"}},
		{"the MTU of the uplink", ip("link set uplink mtu 1300"), "c2 192.0.2.2 --size 1400", []string{after + "it has 1400 bytes, and the MTU of uplink is 1300", `"mtu": "auto"`}},
		{"the MTU of the container", nil, "c2 192.0.2.2:53/udp --size 2000", []string{"it was not sent: it has 2000 bytes, and the MTU of eth0 is 1500"}},
		{"no answer to ARP", nil, "c2 192.0.2.9 --wait 1500ms", []string{"no host answers for 192.0.2.9 on interface uplink (ARP)"}},
	}
}

// byLinks are drops by links, bridges, and what is in the containers.
func byLinks() []drop {
	c2, c3 := netnsOf("c2"), netnsOf("c3")
	in := func(netns, command string) func(*lab) { return func(l *lab) { l.in(netns, command) } }
	end := func(container, command string) func(*lab) {
		return func(l *lab) { l.in("", fmt.Sprintf(command, l.hostEnd(container))) }
	}
	return []drop{
		{"the host's end is down", end("c2", "ip link set %s down"), "c2 192.0.2.2", []string{"the host's end of eth0 of container c2 is down: ip link set veth"}},
		{"the bridge is down", in("", "ip link set ln1 down"), "c2 192.0.2.2", []string{`bridge ln1 of network "plain" is down: ip link set ln1 up`}},
		{"the host's end is no port", end("c2", "ip link set %s nomaster"), "c2 192.0.2.2", []string{"the host's end of eth0 of container c2 is no port of bridge ln1", "master ln1"}},
		{"the port forwards nothing", func(l *lab) { // STP has it listen for 15 s
			l.in("", "ip link set ln1 type bridge forward_delay 1500 stp_state 1")
			end("c2", "ip link set %s down")(l)
			end("c2", "ip link set %s up")(l)
		}, "c2 192.0.2.2", []string{"is a port of bridge ln1 that forwards nothing: bridge link set dev veth"}},
		{"the other container's end is down", end("c3", "ip link set %s down"), "host c3", []string{"the host's end of eth0 of container c3 is down"}},
		{"the same, known to the sender, without forwarding", func(l *lab) {
			l.in(c2, "ip neigh replace 10.33.0.3 lladdr 02:00:00:00:00:33 dev eth0")
			l.in("", "ip link set "+l.hostEnd("c3")+" down")
			l.sysctl("net/ipv4/ip_forward", "0")
		}, "c2 c3", []string{"the host's end of eth0 of container c3 is down"}},
		{"the other container's interface is down", in(c3, "ip link set eth0 down"), "host c3", []string{"interface eth0 in container c3 is down: ip link set eth0 up in there"}},
		{"the other container has lost its address", in(c3, "ip addr del 10.33.0.3/24 dev eth0"), "host 10.33.0.3", []string{"container c3 has lost its address 10.33.0.3", "ip addr add 10.33.0.3/24 dev eth0"}},
		{"the gateway's address is gone", in("", "ip addr del 10.33.0.1/24 dev ln1"), "c2 192.0.2.2", []string{"the gateway 10.33.0.1 of container c2 is no address of this host any more: lnctl repair"}},
		{"the container's interface is down", in(c2, "ip link set eth0 down"), "c2 192.0.2.2", []string{"c2 has no way to 192.0.2.2", "its interface eth0 is down: ip link set eth0 up in there"}},
		{"the container has no default route", in(c2, "ip route del default"), "c2 192.0.2.2", []string{"c2 has no way to 192.0.2.2", "there is no default route"}},
		{"a route blackhole of the container", in(c2, "ip route add blackhole 192.0.2.0/24"), "c2 192.0.2.2", []string{"c2 has no way to 192.0.2.2", "ip route del blackhole 192.0.2.0/24"}},
		{"another host is the gateway", in(c2, "ip neigh replace 10.33.0.1 lladdr 02:00:00:00:00:99 dev eth0"), "c2 192.0.2.2", []string{"container c2 sends what is for 10.33.0.1 to 02:00:00:00:00:99", "another host has that address, too"}},
		{"another host has the container's address", in("", "ip neigh replace 10.33.0.3 lladdr 02:00:00:00:00:99 dev ln1"), "host c3", []string{"what is for 10.33.0.3 goes to 02:00:00:00:00:99", "another host has that address, too"}},
		{"answers are dropped", func(l *lab) { l.foreign("", "ip", "other", "forward priority 5", "icmp type echo-reply drop") }, "c1 c2", []string{"it came into container c2, and no answer came (silence)", "trace the other way, to c1"}},
		{"the container answers no echo", in(c2, "sysctl -w net.ipv4.icmp_echo_ignore_all=1"), "host c2", []string{"it came into container c2, which answers no echo: sysctl -w net.ipv4.icmp_echo_ignore_all=0"}},
	}
}

// policies writes the rules of NetworkPolicies, as ln-agent does, for pods c1 and c2.
func policies(elems func(*admit.Tables) []admit.Elem) func(*lab) {
	return func(l *lab) {
		l.t.Helper()
		tables := admit.New()
		defer func() { _ = tables.Close() }()
		l.must(tables.Replace(context.Background(), append(elems(tables), tables.Open(l.hostEnd("c1")), tables.Open(l.hostEnd("c2")))))
	}
}

// isolated isolates the pod c2 on one side.
func isolated(side admit.Side) func(*lab) {
	return policies(func(s *admit.Tables) []admit.Elem {
		pod := netip.MustParseAddr("10.33.0.2")
		return []admit.Elem{s.Judge(pod), s.Isolate(pod, side, admit.NoPorts)}
	})
}

func (l *lab) mac(name string) string {
	l.t.Helper()
	link, err := netlink.LinkByName(name)
	l.must(err)
	return link.Attrs().HardwareAddr.String()
}

// Each drop is planted alone, and a real packet meets it: trace says where it was dropped, by which
// rule, route or setting, and what to change.
func TestDrops(t *testing.T) {
	t.Parallel()
	all := slices.Concat(byLibnet(), byOthers(), byRoutes(), byLinks())
	names := map[string]bool{}
	for _, tt := range all {
		names[tt.of] = true
		t.Run(tt.of, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.populate()
			l.populateModes()
			if tt.plant != nil {
				tt.plant(l)
			}
			args := strings.Fields(tt.args)
			if !slices.Contains(args, "--wait") {
				args = append(args, "--wait", "600ms")
			}
			out := l.lnctl(exitProblem, append([]string{"trace"}, args...)...)
			for _, want := range tt.says {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
		})
	}
	t.Logf("%d different drops are planted, and explained", len(names))
	if len(names) < wantDrops || len(names) != len(all) {
		t.Errorf("%d different drops of %d, want %d", len(names), len(all), wantDrops)
	}
}
