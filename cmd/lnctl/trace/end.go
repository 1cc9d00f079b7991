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
	"github.com/libnet-cni/libnet/internal/routing"
	"github.com/libnet-cni/libnet/internal/state"
)

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

// furthest is where the packet was seen last; nil: nowhere.
func (w *way) furthest() (*place, nftrace.Step) {
	for _, p := range slices.Backward(w.places()) {
		if last, came := p.last(); came {
			return p, p.routedLast(last)
		}
	}
	return nil, nftrace.Step{}
}

// whole says that the packet passed all of the last hook that it came to, and was not lost in it.
func (p *place) whole(last nftrace.Step) bool {
	through := map[string]string{"prerouting": "translated", "input": "received", "forward": "forwarded", "output": "sent", "postrouting": "postrouting"}
	return last.Family != "bridge" && p.passed("inet", through[last.Hook])
}

// end says why a packet that no rule of nf_tables dropped went no further than where it was seen
// last; empty: that is not known.
func (w *way) end() (says string, arrived bool) {
	p, last := w.furthest()
	switch {
	case p == nil && errors.Is(w.answer.err, unix.EMSGSIZE) && w.from != nil:
		_ = netlink.In(w.from.ns, func(c *netlink.Conn) error {
			if r, err := routing.Ask(c, routing.Question{To: w.dest.Addr()}); err == nil {
				says = "it was not sent: " + w.tooLarge(c, r.Out)
			}
			return nil
		})
		return says, false
	case p == nil:
		return "", false
	case last.Hook == "input" && p.whole(last):
		return w.silent(p)
	}
	_ = netlink.In(p.ns, func(c *netlink.Conn) error {
		says = w.endAt(p, last, c)
		return nil
	})
	if says == "" {
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
	bridged := p == w.host && len(w.fromSameBridge(last.To.Addr())) > 0
	switch {
	case last.Family == "netdev" || last.Family == "bridge" || last.Hook == "prerouting" && p.whole(last) && bridged:
		return w.onBridge(last, c)
	case last.Hook != "postrouting" && !p.whole(last):
		return w.byLegacy(p, last.Hook)
	case last.Hook == "prerouting":
		return w.notRouted(p, last, c)
	case last.Hook != "postrouting":
		return ""
	}
	if says := w.notDelivered(p, last, c); says != "" || p != w.host || w.from == nil {
		return says
	}
	for _, r := range w.from.attached { // the answer may be what is lost
		if says := w.portFault(r, c); says != "" && r.Bridge == bridgeTo(r, w.source) {
			return "no answer came, and " + says
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
