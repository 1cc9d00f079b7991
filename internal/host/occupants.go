package host

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
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
func (h *Host) Occupants(bridge, prefix string, subnet netip.Prefix) ([]Occupant, error) {
	o := occupants{h.conn, bridge, prefix, subnet, map[int]*netlink.Device{}}
	all, err := o.addresses()
	if err != nil {
		return nil, err
	}
	routes, err := o.routes()
	return append(all, routes...), err
}

// occupants looks for what is in the way of a subnet by a bridge.
type occupants struct {
	*netlink.Conn
	bridge, prefix string
	subnet         netip.Prefix
	seen           map[int]*netlink.Device // of those asked for; nil: the bridge itself, or gone
}

// other returns a link that is neither the bridge nor above it; nil: it is one of
// these.
func (o *occupants) other(index int) (*netlink.Device, error) {
	d, known := o.seen[index]
	if known {
		return d, nil
	}
	d, err := o.DeviceByIndex(index)
	if err != nil && !errors.Is(err, netlink.ErrNotFound) {
		return nil, err
	}
	if err != nil || d.Name == o.bridge || strings.HasPrefix(d.Name, o.bridge+".") {
		d = nil
	}
	o.seen[index] = d
	return d, nil
}

func (o *occupants) addresses() ([]Occupant, error) {
	msgs, err := o.Dump(func() *nl.NetlinkRequest {
		return netlink.Request(unix.RTM_GETADDR, 0, nl.NewIfAddrmsg(netlink.Family(o.subnet.Addr())))
	}, unix.RTM_NEWADDR)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var all []Occupant
	for _, b := range msgs {
		a, index, err := netlink.ParseAddr(b)
		if err != nil {
			return nil, err
		}
		if !a.Prefix.Overlaps(o.subnet) {
			continue
		}
		d, err := o.other(index)
		if err != nil {
			return nil, err
		}
		if d != nil && (o.subnet.Contains(a.Prefix.Addr()) || strings.HasPrefix(d.Alias, o.prefix)) {
			all = append(all, Occupant{Device: d.Name, Alias: d.Alias, Addr: a.Prefix})
		}
	}
	return all, nil
}

func (o *occupants) routes() ([]Occupant, error) {
	msgs, err := o.Dump(func() *nl.NetlinkRequest {
		msg := nl.NewRtDelMsg() // all zero but the table
		msg.Family, msg.Scope, msg.Table = uint8(netlink.Family(o.subnet.Addr())), 0, unix.RT_TABLE_MAIN
		return netlink.Request(unix.RTM_GETROUTE, 0, msg, netlink.AttrUint32(unix.RTA_TABLE, unix.RT_TABLE_MAIN))
	}, unix.RTM_NEWROUTE)
	if errors.Is(err, netlink.ErrNotFound) {
		return nil, nil // no such table
	}
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var all []Occupant
	for _, b := range msgs {
		r, unicast, err := netlink.ParseRoute(b)
		if err != nil {
			return nil, err
		}
		if r.Table != unix.RT_TABLE_MAIN || r.Dst.Bits() < o.subnet.Bits() || !o.subnet.Contains(r.Dst.Addr()) {
			continue
		}
		way := Occupant{Route: r.Dst, Via: r.Gateway}
		if unicast {
			d, err := o.other(r.OIF)
			if err != nil {
				return nil, err
			}
			if d == nil {
				continue
			}
			way.Device, way.Alias = d.Name, d.Alias
		} else if !dropping(nl.DeserializeRtMsg(b).Type) {
			continue
		}
		all = append(all, way)
	}
	return all, nil
}

// dropping says that a kind of route keeps its packets from going anywhere.
func dropping(kind uint8) bool {
	switch kind {
	case unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT, unix.RTN_THROW:
		return true
	}
	return false
}
