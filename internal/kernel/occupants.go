package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Occupant is something of the host that keeps packets for a subnet from the
// interface that is to lead there.
type Occupant struct {
	// Device has the address, or the route leads by it; empty: the route drops.
	Device, Alias string
	// Addr is the address, host bits included; the zero Prefix: it is a route.
	Addr netip.Prefix
	// Route is the destination of a route, Via its gateway; zero: none.
	Route netip.Prefix
	Via   netip.Addr
}

// String says what it is, as "192.0.2.1/24, the address of eth0".
func (o Occupant) String() string {
	switch {
	case o.Addr.IsValid():
		return fmt.Sprintf("%s, the address of %s", o.Addr, o.Device)
	case o.Device == "":
		return fmt.Sprintf("the host's route to %s, which drops", o.Route)
	case o.Via.IsValid():
		return fmt.Sprintf("the host's route to %s, which leads via %s by %s", o.Route, o.Via, o.Device)
	}
	return fmt.Sprintf("the host's route to %s, which leads by %s", o.Route, o.Device)
}

// Occupants returns what of the host is in the way of a subnet that a bridge, or
// a VLAN interface above it, is to lead to: addresses of other interfaces in the
// subnet; addresses of interfaces with an alias that starts with prefix whose
// subnet overlaps; and routes of the main table to the subnet or to a part of it
// that lead elsewhere. Wider routes are not: the bridge's own is more specific.
func (h *Handle) Occupants(bridge, prefix string, subnet netip.Prefix) ([]Occupant, error) {
	ds, err := h.devices(0)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	others := map[int]*device{}
	for _, d := range ds {
		if d.name != bridge && !strings.HasPrefix(d.name, bridge+".") {
			others[d.index] = d
		}
	}
	all, err := h.addressesIn(others, prefix, subnet)
	if err != nil {
		return nil, err
	}
	routes, err := h.routesInto(others, subnet)
	return append(all, routes...), err
}

func (c *conn) addressesIn(others map[int]*device, prefix string, subnet netip.Prefix) ([]Occupant, error) {
	msgs, err := c.dump(func() *nl.NetlinkRequest {
		return request(unix.RTM_GETADDR, 0, nl.NewIfAddrmsg(family(subnet.Addr())))
	}, unix.RTM_NEWADDR)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var all []Occupant
	for _, b := range msgs {
		a, index, err := parseAddr(b)
		if err != nil {
			return nil, err
		}
		d := others[index]
		if d == nil {
			continue
		}
		ours := strings.HasPrefix(d.alias, prefix) && a.prefix.Overlaps(subnet)
		if ours || subnet.Contains(a.prefix.Addr()) {
			all = append(all, Occupant{Device: d.name, Alias: d.alias, Addr: a.prefix})
		}
	}
	return all, nil
}

func (c *conn) routesInto(others map[int]*device, subnet netip.Prefix) ([]Occupant, error) {
	msgs, err := c.dump(func() *nl.NetlinkRequest {
		msg := nl.NewRtDelMsg() // all zero but the table
		msg.Family, msg.Scope, msg.Table = uint8(family(subnet.Addr())), 0, unix.RT_TABLE_MAIN
		return request(unix.RTM_GETROUTE, 0, msg, attrUint32(unix.RTA_TABLE, unix.RT_TABLE_MAIN))
	}, unix.RTM_NEWROUTE)
	if errors.Is(err, ErrNotFound) {
		return nil, nil // no such table
	}
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var all []Occupant
	for _, b := range msgs {
		r, unicast, err := parseRoute(b)
		if err != nil {
			return nil, err
		}
		kind := nl.DeserializeRtMsg(b).Type
		drops := kind == unix.RTN_BLACKHOLE || kind == unix.RTN_UNREACHABLE || kind == unix.RTN_PROHIBIT || kind == unix.RTN_THROW
		if r.table != unix.RT_TABLE_MAIN || r.dst.Bits() < subnet.Bits() || !subnet.Contains(r.dst.Addr()) || !unicast && !drops {
			continue
		}
		o := Occupant{Route: r.dst, Via: r.gateway}
		if unicast {
			d := others[r.oif]
			if d == nil {
				continue // by the bridge itself
			}
			o.Device, o.Alias = d.name, d.alias
		}
		all = append(all, o)
	}
	return all, nil
}
