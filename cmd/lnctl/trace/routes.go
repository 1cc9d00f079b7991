package trace

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/nftrace"
	"github.com/libnet-cni/libnet/internal/routing"
)

// notRouted says why a packet that came in was neither taken nor forwarded.
func (w *way) notRouted(p *place, last nftrace.Step, c *netlink.Conn) string {
	at := "the kernel let it go no further after prerouting" + p.inside() + ": "
	in, err := c.Device(last.In)
	if err != nil {
		return ""
	}
	from, to := last.From.Addr(), last.To.Addr()
	r, err := routing.Ask(c, routing.Question{From: from, To: to, In: in.Index, Protocol: w.number(), Port: last.To.Port()})
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
	case err == nil && r.Kind == unix.RTN_LOCAL:
		return ""
	case (err == nil || errno == unix.EHOSTUNREACH) && off && !host.IsLocal(to):
		if !is6 && sysctl("net/ipv4/ip_forward") == "0" {
			forwarding = "net/ipv4/ip_forward"
		}
		if p.container != "" {
			return fmt.Sprintf("%s%s is no address of it, and it does not forward: lnctl check", at, to)
		}
		return at + "forwarding is off (" + host.SysctlName(forwarding) + " = 0): " + set(forwarding, "1")
	case err == nil && w.size > mtuOf(c, r.Out):
		return at + w.tooLarge(c, r.Out)
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
	if text := routing.Refusing(c, to); text != "" {
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
	if _, err := routing.Ask(c, routing.Question{To: to}); refusalOf(err) == unix.EINVAL {
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
	if r, err := routing.Ask(c, routing.Question{To: from}); err == nil {
		if r.Out == in {
			return noRoute(c, unix.EINVAL, to)
		}
		if d, err := c.DeviceByIndex(r.Out); err == nil {
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
