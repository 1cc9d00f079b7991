package explain

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/libnet-cni/libnet/internal/firewall/iptables"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/tunnel"
)

// Step is what ADD makes in one go, in the words of ip, bridge, sysctl and nft.
type Step struct {
	Does     string   `json:"does"`
	Commands []string `json:"commands"`
}

func (s *Step) add(format string, args ...any) {
	s.Commands = append(s.Commands, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// steps are those of a plan, in the order of ADD: rules before what they guard.
func steps(n *plan.Network, p plan.Attachment, backend model.Backend) ([]Step, error) {
	rules, err := rulesOf(p, backend)
	if err != nil {
		return nil, err
	}
	all := []Step{rules, bridgeStep(p)}
	if n.Config.Tunnel.Used() {
		for _, t := range n.Tunnels() {
			all = append(all, tunnelStep(t))
		}
	}
	all = append(all, linkStep(p.Link), insideStep(p.Link))
	forward := Step{Does: "the host forwards"}
	if p.V4 {
		forward.add("sysctl -w net.ipv4.ip_forward=1")
	}
	if p.V6 {
		forward.add("sysctl -w net.ipv6.conf.all.forwarding=1")
	}
	all = append(all, forward)
	kept := all[:0]
	for _, s := range all {
		if len(s.Commands) > 0 {
			kept = append(kept, s)
		}
	}
	return kept, nil
}

// rulesOf are the elements of libnet's sets: the rules that use them are the same for all
// networks.
func rulesOf(p plan.Attachment, backend model.Backend) (Step, error) {
	s := Step{Does: "rules: elements of the sets of table inet libnet, whose rules are the same for all networks"}
	if !p.Rules {
		return s, nil
	}
	if backend == model.BackendIPTables {
		s.Does = "rules of iptables"
		for _, line := range iptables.Words(p.Network, p.Endpoint) {
			s.add("%s", line)
		}
		return s, nil
	}
	planned, err := ruleset.Plan(p.Network, p.Endpoint)
	if err != nil {
		return s, err
	}
	for _, e := range planned.Elems {
		set, element, _ := strings.Cut(e.String(), " { ")
		key, value, mapped := strings.Cut(strings.TrimSuffix(element, " }"), " : ")
		if e.Owner != "" {
			key += " comment " + strconv.Quote(e.Owner)
		}
		if mapped {
			key += " : " + value
		}
		s.add("nft add element %s '{ %s }'", set, key)
	}
	if planned.Mark != nil {
		s.Does += "; and a rule of chain marks for acceptFwMark"
	}
	return s, nil
}

func bridgeStep(p plan.Attachment) Step {
	b := p.Bridge
	s := Step{Does: "bridge, unless it is there"}
	s.add("ip link add %s type bridge", b.Name)
	if b.Alias != "" {
		s.add("ip link set %s alias %s", b.Name, b.Alias)
	}
	if b.MTU > 0 {
		s.add("ip link set %s mtu %d", b.Name, b.MTU)
	}
	ipv6(&s, "", b.Name, b.IPv6)
	if b.Promisc {
		s.add("ip link set %s promisc on", b.Name)
	}
	if b.VLANFiltering {
		s.add("ip link set %s type bridge vlan_filtering 1", b.Name)
	}
	holder := b.Name
	if b.VLAN > 0 {
		holder = fmt.Sprintf("%s.%d", b.Name, b.VLAN)
		s.add("# the gateway is on %s, a veth whose other end is a port of %s in VLAN %d", holder, b.Name, b.VLAN)
	}
	s.add("ip link set %s up", b.Name)
	for _, g := range b.Gateways {
		s.add("ip address add %s dev %s%s", g, holder, nodad(g.Addr()))
	}
	for _, subnet := range b.Subnets {
		s.add("ip route add %s dev %s", subnet, holder)
	}
	if b.RouteLocalnet {
		s.add("sysctl -w net.ipv4.conf.%s.route_localnet=1", b.Name)
	}
	return s
}

// ipv6 is what the mode does to an interface, of the container with a prefix of a command.
func ipv6(s *Step, in, name string, mode host.IPv6Mode) {
	switch mode {
	case host.IPv6On:
		s.add("%ssysctl -w net.ipv6.conf.%s.disable_ipv6=0", in, name)
	case host.IPv6Off:
		s.add("%ssysctl -w net.ipv6.conf.%s.disable_ipv6=1", in, name)
	}
}

func nodad(a netip.Addr) string {
	if a.Is6() {
		return " nodad"
	}
	return ""
}

func linkStep(l link.Link) Step {
	s := Step{Does: "veth, its host's end a port of the bridge"}
	s.add("ip link add %s type veth peer name %s netns CONTAINER", l.HostName, l.IfName)
	s.add("ip link set %s alias %s", l.HostName, l.Owner)
	if l.MTU > 0 {
		s.add("ip link set %s mtu %d", l.HostName, l.MTU)
	}
	s.add("ip link set %s master %s up", l.HostName, l.Bridge)
	if l.Hairpin {
		s.add("bridge link set dev %s hairpin on", l.HostName)
	}
	if l.Isolated {
		s.add("bridge link set dev %s isolated on", l.HostName)
	}
	if l.VLAN > 0 {
		s.add("bridge vlan add dev %s vid %d pvid untagged", l.HostName, l.VLAN)
	}
	for _, r := range l.Trunk {
		s.add("bridge vlan add dev %s vid %d-%d", l.HostName, r.Min, r.Max)
	}
	if (l.VLAN > 0 || len(l.Trunk) > 0) && !l.PreserveDefaultVLAN {
		s.add("bridge vlan del dev %s vid 1", l.HostName)
	}
	return s
}

func insideStep(l link.Link) Step {
	const in = "ip netns exec CONTAINER "
	s := Step{Does: "inside of the container"}
	if l.MAC != nil {
		s.add("ip -n CONTAINER link set %s address %s", l.IfName, l.MAC)
	}
	if l.MTU > 0 {
		s.add("ip -n CONTAINER link set %s mtu %d", l.IfName, l.MTU)
	}
	ipv6(&s, in, l.IfName, l.IPv6)
	if l.Down {
		return s
	}
	s.add("ip -n CONTAINER link set %s up", l.IfName)
	for _, a := range l.Addrs {
		dad := ""
		if !l.EnableDAD {
			dad = nodad(a.Addr())
		}
		s.add("ip -n CONTAINER address add %s dev %s%s", a, l.IfName, dad)
	}
	for _, r := range l.Routes {
		s.add("ip -n CONTAINER route add %s", routeWords(r, l.IfName))
	}
	return s
}

func routeWords(r link.Route, dev string) string {
	words := []string{r.Dst.String()}
	if r.Dst.Bits() == 0 {
		words = []string{"default"}
	}
	if r.Gateway.IsValid() {
		words = append(words, "via", r.Gateway.String())
	}
	words = append(words, "dev", dev)
	for _, n := range []struct {
		word  string
		value int
	}{{"mtu", r.MTU}, {"advmss", r.AdvMSS}, {"metric", r.Priority}, {"table", r.Table}} {
		if n.value != 0 {
			words = append(words, n.word, strconv.Itoa(n.value))
		}
	}
	return strings.Join(words, " ")
}

func tunnelStep(t tunnel.Tunnel) Step {
	s := Step{Does: "tunnel to the network's other hosts, unless it is there"}
	if t.Secure != nil {
		s.add("ip link add %s type wireguard", t.Name)
		s.add("wg set %s listen-port %d # private key, and a peer for each other host", t.Name, t.Port)
	} else {
		s.add("ip link add %s type vxlan id %d local %s dstport %d nolearning", t.Name, t.VNI, t.Local, t.Port)
	}
	s.add("ip link set %s alias %s up", t.Name, t.Alias)
	for _, a := range t.Addrs {
		s.add("ip address add %s dev %s", a, t.Name)
	}
	for _, r := range t.Routes {
		via := ""
		if r.Via.IsValid() {
			via = " via " + r.Via.String() + " onlink"
		}
		s.add("ip route add %s%s dev %s", r.Dst, via, t.Name)
	}
	for _, n := range t.Neighbours {
		s.add("ip neighbour add %s lladdr %s dev %s nud permanent", n.Addr, n.MAC, t.Name)
	}
	for _, f := range t.FDB {
		s.add("bridge fdb add %s dev %s dst %s self permanent", f.MAC, t.Name, f.Remote)
	}
	return s
}
