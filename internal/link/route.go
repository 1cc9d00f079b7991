package link

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// Route is a route inside a container.
type Route struct {
	Dst netip.Prefix
	// Gateway is the next hop; the zero Addr makes the route on-link.
	Gateway netip.Addr
	// MTU and AdvMSS, in bytes, are route attributes; 0 sets none.
	MTU, AdvMSS int
	// Priority is the route's metric; 0 leaves it to Link.Precedence.
	Priority int
	// Table is the routing table; 0 is main.
	Table int
	// Scope is the route's scope (0 global, 253 link, ...); nil leaves the default:
	// link for an on-link IPv4 route, global otherwise.
	Scope *int
}

func (r *Route) check() error {
	if !r.Dst.IsValid() || r.Dst.Addr().Is4In6() {
		return fmt.Errorf("invalid route destination %s", r.Dst)
	}
	if r.Gateway.IsValid() && r.Gateway.Is4() != r.Dst.Addr().Is4() {
		return fmt.Errorf("route %s via %s: not of one family", r.Dst, r.Gateway)
	}
	return nil
}

// String is "10.2.0.0/16 via 10.1.0.1", or the destination alone.
func (r *Route) String() string {
	if r.Gateway.IsValid() {
		return fmt.Sprintf("%s via %s", r.Dst.Masked(), r.Gateway)
	}
	return r.Dst.Masked().String()
}

func (r *Route) table() int {
	if r.Table == 0 {
		return unix.RT_TABLE_MAIN
	}
	return r.Table
}

func (r *Route) scope() uint8 {
	switch {
	case r.Scope != nil:
		return uint8(*r.Scope)
	case !r.Gateway.IsValid() && r.Dst.Addr().Is4():
		return unix.RT_SCOPE_LINK
	}
	return unix.RT_SCOPE_UNIVERSE
}

// metrics is the value of RTA_METRICS; nil: none.
func (r *Route) metrics() []byte {
	var value []byte
	for _, m := range []struct{ typ, value int }{{unix.RTAX_MTU, r.MTU}, {unix.RTAX_ADVMSS, r.AdvMSS}} {
		if m.value > 0 {
			value = append(value, netlink.AttrUint32(m.typ, uint32(m.value)).Serialize()...)
		}
	}
	return value
}

// matches compares what was asked for; the kernel gives an IPv6 route no scope.
func (r *Route) matches(have netlink.Route) bool {
	return have.Gateway == r.Gateway && (r.MTU == 0 || have.MTU == r.MTU) && (r.AdvMSS == 0 || have.AdvMSS == r.AdvMSS) &&
		(r.Priority == 0 || have.Priority == r.Priority) &&
		(r.Dst.Addr().Is6() || have.Scope == r.scope())
}

// addRoute adds a route; one that is there already is success.
func addRoute(c *netlink.Conn, index int, r Route) error {
	have := netlink.Route{
		Dst: r.Dst.Masked(), Gateway: r.Gateway, OIF: index, Table: r.table(), Scope: r.scope(), Protocol: unix.RTPROT_BOOT,
		Metrics: r.metrics(),
	}
	err := c.Change(have.Message(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, r.Priority))
	if err != nil && !errors.Is(err, netlink.ErrExists) {
		return fmt.Errorf("add route %s: %w", &r, err)
	}
	return nil
}

// removeRoute removes an on-link route of the main table.
func removeRoute(c *netlink.Conn, index int, dst netip.Prefix) error {
	msg := nl.NewRtDelMsg()
	msg.Family, msg.Dst_len = uint8(netlink.Family(dst.Addr())), uint8(dst.Bits())
	err := c.Change(netlink.Request(unix.RTM_DELROUTE, 0, msg,
		netlink.Attr(unix.RTA_DST, dst.Masked().Addr().AsSlice()), netlink.AttrUint32(unix.RTA_OIF, uint32(index))))
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove route %s: %w", dst, err)
	}
	return nil
}
