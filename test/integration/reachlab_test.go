package integration

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
)

// reachLab is a host with two networks, and the places around it:
//
//	server, sibling ─ br1 ┐                 ┌ neighbour 192.0.2.2
//	                      host 192.0.2.1 ─ LAN ─ attacker 192.0.2.3
//	other ─────────── br2 ┘                 └ router 192.0.2.254 ─ remote 198.51.100.2
//
// All of them know the way to the containers' subnets: what does not come
// through is stopped by the host, not lost. Attacker, sibling and other send
// even what is for 127.0.0.0/8 to the host. The host forwards, whatever the
// plugin does about it, lets 127.0.0.0/8 in from the LAN, as kube-proxy does on
// a node, and has the further address 192.0.2.10.
type reachLab struct {
	*host
	firewall
	mode  string // a key of reachModes
	addrs map[string][]netip.Addr
	heard sync.Map // the words of datagrams that have arrived anywhere
}

// firewall is what a host has to keep packets away, apart from the plugin.
type firewall struct {
	backend string // of the plugin
	forward string // the policy of iptables' FORWARD
}

var firewalls = []firewall{
	{"nftables", "ACCEPT"}, {"nftables", "DROP"},
	{"iptables", "ACCEPT"}, {"iptables", "DROP"},
}

// iptables says if the host has tables of iptables.
func (f firewall) iptables() bool { return f.backend == "iptables" || f.forward != "ACCEPT" }

func (f firewall) String() string { return f.backend + "/" + f.forward }

// The host's further addresses.
const (
	specific4 = "192.0.2.10"
	specific6 = "2001:db8::10"
)

// station is a machine on the host's LAN or behind the router.
type station struct {
	name               string
	prefix4, prefix6   string
	gateway4, gateway6 string // to everywhere else
}

// The neighbours know the world by the host.
var stations = []station{
	{"neighbour", "192.0.2.2/24", "2001:db8::2/64", "192.0.2.1", "2001:db8::1"},
	{"attacker", "192.0.2.3/24", "2001:db8::3/64", "192.0.2.1", "2001:db8::1"},
	{"remote", "198.51.100.2/24", "2001:db8:1::2/64", "198.51.100.1", "2001:db8:1::1"},
}

func newReachLab(t testing.TB, mode string, f firewall) *reachLab {
	t.Helper()
	l := &reachLab{host: newHost(t), firewall: f, mode: mode, addrs: map[string][]netip.Addr{}}
	l.forwards("")
	l.lan()
	if f.iptables() {
		l.prime()
	}
	for _, name := range []string{"server", "sibling", "other"} {
		l.netns(name)
	}
	return l
}

// forwards makes a namespace a router without delays: addresses are usable at
// once, it sends no redirects, and br_netfilter ignores bridged frames.
func (l *reachLab) forwards(ns string) {
	l.t.Helper()
	l.sysctls(ns, map[string]string{
		"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1",
		"ipv4/conf/all/send_redirects": "0", "ipv4/conf/default/send_redirects": "0",
		"ipv6/conf/all/accept_dad": "0", "ipv6/conf/default/accept_dad": "0",
	})
	l.bridgeFilter(ns, "0")
}

// bridgeFilter switches br_netfilter, on kernels that have it, and says if
// they have.
func (l *reachLab) bridgeFilter(ns, value string) (has bool) {
	l.t.Helper()
	if _, err := os.Stat("/proc/sys/net/bridge"); err != nil {
		return false
	}
	l.sysctls(ns, map[string]string{"bridge/bridge-nf-call-iptables": value, "bridge/bridge-nf-call-ip6tables": value})
	return true
}

func (l *reachLab) sysctls(ns string, values map[string]string) {
	l.t.Helper()
	l.in(ns, func() {
		for name, value := range values {
			l.check(os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o644))
		}
	})
}

// lan makes everything that is not the host's. The router's lan is a bridge.
func (l *reachLab) lan() {
	l.t.Helper()
	router := l.netns("router")
	l.forwards(router)
	l.in(router, func() {
		l.check(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan"}}))
	})
	l.setAddress(router, "lan", "192.0.2.254/24")
	l.setAddress(router, "lan", "2001:db8::fe/64")
	l.plug(router, "uplink", "")
	for _, p := range []string{"192.0.2.1/24", specific4 + "/24", "2001:db8::1/64", specific6 + "/64"} {
		l.setAddress("", "uplink", p)
	}
	l.route("", "0.0.0.0/0", "192.0.2.254")
	l.route("", "::/0", "2001:db8::fe")
	for _, s := range stations {
		l.station(router, s)
	}
	l.setAddress(router, "remote", "198.51.100.1/24")
	l.setAddress(router, "remote", "2001:db8:1::1/64")
	for _, n := range reachNetworks {
		l.route(router, n.subnet4, "192.0.2.1")
		l.route(router, n.subnet6, "2001:db8::1")
	}
	l.sysctls("", map[string]string{"ipv4/conf/uplink/route_localnet": "1"})
	l.stealLoopback("attacker", "192.0.2.1")
}

func (l *reachLab) station(router string, s station) {
	l.t.Helper()
	ns := l.netns(s.name)
	l.sysctls(ns, map[string]string{"ipv6/conf/all/accept_dad": "0", "ipv6/conf/default/accept_dad": "0"})
	l.plug(router, s.name, ns)
	for _, p := range []string{s.prefix4, s.prefix6} {
		l.setAddress(ns, s.name, p)
		l.addrs[s.name] = append(l.addrs[s.name], netip.MustParsePrefix(p).Addr())
	}
	l.route(ns, "0.0.0.0/0", s.gateway4)
	l.route(ns, "::/0", s.gateway6)
}

// plug connects a namespace to the router; all but remote are on its lan.
func (l *reachLab) plug(router, name, ns string) {
	l.t.Helper()
	target := ns
	if ns == "" {
		target = "/proc/thread-self/ns/net"
	}
	f, err := os.Open(target)
	l.check(err)
	l.in(router, func() {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name, PeerNamespace: netlink.NsFd(int(f.Fd()))}
		l.check(netlink.LinkAdd(veth))
		if name != "remote" {
			lan, err := netlink.LinkByName("lan")
			l.check(err)
			l.check(netlink.LinkSetMaster(veth, lan))
		}
		l.check(netlink.LinkSetUp(veth))
	})
	l.check(f.Close())
}

// stealLoopback makes a namespace send what is for 127.0.0.0/8 to the gateway.
func (l *reachLab) stealLoopback(name, gateway string) {
	l.t.Helper()
	l.in(netnsPath(name), func() {
		lo, err := netlink.LinkByName("lo")
		l.check(err)
		own, err := netlink.AddrList(lo, netlink.FAMILY_V4)
		l.check(err)
		for _, a := range own {
			l.check(netlink.AddrDel(lo, &a))
		}
		l.check(os.WriteFile("/proc/sys/net/ipv4/conf/all/route_localnet", []byte("1"), 0o644))
	})
	l.route(netnsPath(name), "127.0.0.0/8", gateway)
}

// tool runs a program of the system on the host and returns what it prints.
func (l *reachLab) tool(stdin, name string, args ...string) string {
	l.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
