package trace

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/nftrace"
	"github.com/libnet-cni/libnet/internal/state"
)

func itoa(n int) string { return strconv.Itoa(n) }

func prefixOf(a netip.Addr) func(netip.Prefix) bool {
	return func(p netip.Prefix) bool { return p.Contains(a) }
}

func list(ps []netip.Prefix) string {
	var all []string
	for _, p := range ps {
		all = append(all, p.String())
	}
	return strings.Join(all, ", ")
}

// end says why a packet that no rule of nf_tables dropped went no further than it was last seen; empty: that is
// not known.
func (w *way) end() (says string, arrived bool) {
	places := w.places()
	slices.Reverse(places)
	for _, p := range places {
		last, came := p.last()
		if !came {
			continue
		}
		if p.passed("inet", "received") && (last.Hook == "input") {
			return w.silent(p)
		}
		err := netlink.In(p.ns, func(c *netlink.Conn) error {
			says = w.endAt(p, p.routedLast(last), c)
			return nil
		})
		if err != nil {
			return "", false
		}
		break
	}
	switch {
	case says != "":
	case errors.Is(w.answer.err, unix.EMSGSIZE) && w.from != nil && len(w.from.steps) == 0:
		_ = netlink.In(w.from.ns, func(c *netlink.Conn) error {
			if r, err := routed(c, question{to: w.dest.Addr()}); err == nil {
				says = "it was not sent: " + w.tooLarge(c, r.out)
			}
			return nil
		})
	default:
		says = w.wrongGateway()
	}
	return says, false
}

// mtuOf is the MTU of an interface; math.MaxInt: it is not known.
func mtuOf(c *netlink.Conn, index int) int {
	if d, err := c.DeviceByIndex(index); err == nil {
		return d.MTU
	}
	return math.MaxInt
}

// tooLarge says that an interface takes no packet of this size.
func (w *way) tooLarge(c *netlink.Conn, index int) string {
	d, err := c.DeviceByIndex(index)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("it has %d bytes, and the MTU of %s is %d: give the network that MTU (\"mtu\": \"auto\") and make its containers anew, or raise that of %s", w.size, d.Name, d.MTU, d.Name)
}

// silent is what is to be said of a packet that was let in, if no answer came.
func (w *way) silent(p *place) (says string, arrived bool) {
	where := "this host"
	if p.container != "" {
		where = "container " + p.container
	}
	ignored := ""
	if w.protocol == "icmp" {
		_ = p.ns.Do(func() error {
			for _, key := range []string{"net/ipv4/icmp_echo_ignore_all", "net/ipv6/icmp/echo_ignore_all"} {
				if w.dest.Addr().Is6() == strings.Contains(key, "ipv6") && sysctl(key) == "1" {
					ignored = host.SysctlName(key)
				}
			}
			return nil
		})
	}
	switch {
	case ignored != "":
		return fmt.Sprintf("it came into %s, which answers no echo: sysctl -w %s=0 in there", where, ignored), false
	case w.protocol == "udp" || w.ns == nil:
		return "arrived: it came into " + where, true
	}
	back := "host"
	if w.from != nil && w.from.container != "" {
		back = w.from.container
	}
	return fmt.Sprintf("it came into %s, and no answer came (%s): what listens there does not answer, or the answer is lost: lnctl trace the other way, to %s", where, w.answer.text, back), false
}

// endAt is end for the place where the packet was seen last, with rtnetlink of that.
func (w *way) endAt(p *place, last nftrace.Step, c *netlink.Conn) string {
	seen := func(chain string) bool { return p.passed("inet", chain) }
	legacy := func(hook string) string { return w.byLegacy(p, hook) }
	switch {
	case last.Family == "netdev" || last.Family == "bridge" && last.Hook != "postrouting" && !seen("prerouting"):
		return w.onBridge(p, last, c)
	case last.Hook == "prerouting" && !seen("translated"):
		return legacy("prerouting")
	case last.Hook == "prerouting":
		return w.notRouted(p, last, c)
	case last.Hook == "input" && !seen("received"):
		return legacy("input")
	case last.Hook == "forward" && !seen("forwarded"):
		return legacy("forward")
	case last.Hook == "output" && !seen("sent"):
		return legacy("output")
	case last.Hook == "postrouting":
		if says := w.notDelivered(p, last, c); says != "" || p != w.host || w.from == nil {
			return says
		}
		for _, r := range w.from.attached { // the answer may be what is lost
			if says := w.portFault(r, c); says != "" && r.Bridge == bridgeTo(r, w.source) {
				return "no answer came, and " + says
			}
		}
	}
	return ""
}

// bridgeTo is the bridge of an attachment that has an address.
func bridgeTo(r state.Endpoint, a netip.Addr) string {
	if addrOf([]state.Endpoint{r}, a) == a {
		return r.Bridge
	}
	return "another"
}

// How many connections the kernel tracks, and may.
const (
	conntrackCount = "net/netfilter/nf_conntrack_count"
	conntrackMax   = "net/netfilter/nf_conntrack_max"
)

// byLegacy blames rules that nf_tables does not tell of.
func (w *way) byLegacy(p *place, hook string) string {
	if hook == "prerouting" || hook == "output" {
		count, _ := strconv.Atoi(sysctl(conntrackCount))
		if most, err := strconv.Atoi(sysctl(conntrackMax)); err == nil && most > 0 && count >= most {
			return fmt.Sprintf("dropped at %s%s, as the table of connections is full (%d): raise it, sysctl -w %s=%d", hook, p.inside(), most, host.SysctlName(conntrackMax), 2*most)
		}
	}
	tables := legacyTables(w.dest.Addr().Is6())
	if len(tables) == 0 {
		return ""
	}
	program := "iptables-legacy"
	if w.dest.Addr().Is6() {
		program = "ip6tables-legacy"
	}
	which := tables[0]
	if slices.Contains(tables, "filter") && hook != "prerouting" {
		which = "filter"
	}
	return fmt.Sprintf("dropped at %s%s, and by no rule of nf_tables: so by one of %s, which is not libnet's (tables %s): %s -t %s -S %s shows its rules and policy",
		hook, p.inside(), program, strings.Join(tables, ", "), program, which, strings.ToUpper(hook))
}

// notRouted says why a packet that came in was neither taken nor forwarded.
func (w *way) notRouted(p *place, last nftrace.Step, c *netlink.Conn) string {
	at := "the kernel let it go no further after prerouting" + p.inside() + ": "
	in, err := c.Device(last.In)
	if err != nil {
		return ""
	}
	from, to := last.From.Addr(), last.To.Addr()
	r, err := routed(c, question{from: from, to: to, in: in.Index, protocol: w.number(), port: last.To.Port()})
	family, is6 := "ipv4", to.Is6()
	if is6 {
		family = "ipv6"
	}
	set := func(path, value string) string { return "sysctl -w " + host.SysctlName(path) + "=" + value }
	forwarding := "net/" + family + "/conf/" + last.In + "/forwarding"
	off := !is6 && sysctl(forwarding) == "0"
	if is6 {
		forwarding = "net/ipv6/conf/all/forwarding"
		off = sysctl(forwarding) == "0" && sysctl("net/ipv6/conf/"+last.In+"/force_forwarding") != "1"
	}
	switch errno := refusalOf(err); {
	case err == nil && r.kind == unix.RTN_LOCAL:
		return ""
	case (err == nil || errno == unix.EHOSTUNREACH) && off && !host.IsLocal(to):
		if !is6 && sysctl("net/ipv4/ip_forward") == "0" {
			forwarding = "net/ipv4/ip_forward"
		}
		if p.container != "" {
			return fmt.Sprintf("%s%s is no address of it, and it does not forward: lnctl check", at, to)
		}
		return at + "forwarding is off (" + host.SysctlName(forwarding) + " = 0): " + set(forwarding, "1")
	case err == nil && w.size > mtuOf(c, r.out):
		return at + w.tooLarge(c, r.out)
	case err == nil && last.Hops == 1:
		return fmt.Sprintf("%sit may pass no more routers (its TTL is 1): raise what the sender begins with (net.ipv4.ip_default_ttl, or the rule of another program that sets it)", at)
	case err == nil:
		return ""
	case errno == unix.EINVAL:
		return at + w.invalid(c, last, in.Index)
	case errno != 0:
		return at + noRoute(c, errno, to)
	}
	return ""
}

// noRoute says what is in the way of a packet to an address.
func noRoute(c *netlink.Conn, errno unix.Errno, to netip.Addr) string {
	if errno == unix.ENETUNREACH {
		if name := downTo(c, to); name != "" {
			return fmt.Sprintf("interface %s, whose subnet %s is in, is down: ip link set %s up", name, to, name)
		}
		return fmt.Sprintf("there is no route to %s, not even a default one: ip route add", to)
	}
	if text := refusing(c, to); text != "" {
		return fmt.Sprintf("the route %q drops it: ip route del %s", text, text)
	}
	kind := map[unix.Errno]string{unix.EACCES: "prohibit", unix.EINVAL: "blackhole", unix.EHOSTUNREACH: "unreachable"}[errno]
	return fmt.Sprintf("a rule of the kind %q drops it (policy routing): ip rule shows it", kind)
}

// downTo is the interface that is down and whose subnet an address is in; empty: there is none.
func downTo(c *netlink.Conn, to netip.Addr) string {
	devices, err := c.Devices(0)
	if err != nil {
		return ""
	}
	for _, d := range devices {
		if d.Up() {
			continue
		}
		addrs, _ := c.Addrs(d.Index, netlink.Family(to))
		for _, a := range addrs {
			if a.Prefix.Masked().Contains(to) {
				return d.Name
			}
		}
	}
	return ""
}

// invalid says why the kernel takes a packet with such a source from such an interface for invalid.
func (w *way) invalid(c *netlink.Conn, last nftrace.Step, in int) string {
	from, to := last.From.Addr(), last.To.Addr()
	if _, err := routed(c, question{to: to}); refusalOf(err) == unix.EINVAL {
		return noRoute(c, unix.EINVAL, to)
	}
	if host.IsLocal(from) {
		return fmt.Sprintf("its source %s is an address of this host, too: two hosts have that address (or the container took it); give one of them another", from)
	}
	if from.IsLoopback() || from.IsMulticast() || to.IsLoopback() {
		return "addresses of localhost do not leave a host: use another"
	}
	strict := ""
	for _, name := range []string{"all", last.In} {
		if v := sysctl("net/ipv4/conf/" + name + "/rp_filter"); v == "1" || v == "2" && strict == "" {
			strict = host.SysctlName("net/ipv4/conf/"+name+"/rp_filter") + " = " + v
		}
	}
	if strict == "" || from.Is6() {
		return noRoute(c, unix.EINVAL, to)
	}
	back := "there is no way back to " + from.String()
	if r, err := routed(c, question{to: from}); err == nil {
		if r.out == in {
			return noRoute(c, unix.EINVAL, to)
		}
		if d, err := c.DeviceByIndex(r.out); err == nil {
			back = fmt.Sprintf("the way back to %s is by %s", from, d.Name)
		}
	}
	advice := "mend the route"
	if strings.HasSuffix(strict, "1") {
		advice += ", or set it to 2"
	}
	return fmt.Sprintf("rp_filter drops what comes in by %s (%s), as %s: %s", last.In, strict, back, advice)
}

// noWay says why the calling thread's network namespace has no way to the destination.
func (p probe) noWay(err error) string {
	says := "it is not known why"
	c, openErr := netlink.Open()
	if openErr != nil {
		return says
	}
	defer c.Close()
	devices, _ := c.Devices(0)
	var up, down []string
	for _, d := range devices {
		switch {
		case d.Index == netlink.LoIndex:
		case d.Up():
			up = append(up, d.Name)
		default:
			down = append(down, d.Name)
		}
	}
	errno := refusalOf(err)
	switch {
	case errors.Is(err, unix.EADDRNOTAVAIL):
		says = "it has no address of this family"
	case errno == unix.ENETUNREACH && len(up) == 0 && len(down) > 0:
		says = fmt.Sprintf("its interface %s is down: ip link set %s up in there", strings.Join(down, ", "), down[0])
	case errno == unix.ENETUNREACH && len(up) == 0:
		says = "it has no interface but lo"
	case errno == unix.ENETUNREACH:
		says = "no route leads there, and there is no default route; its network gives one with isDefaultGateway, and none if it is internal: lnctl check says whether one is lost"
	default:
		says = noRoute(c, errno, p.dest.Addr())
	}
	return says
}
