package kernel

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// VerifyBridge changes nothing and returns one joined error per difference
// between b and the kernel, which is ErrDifferent, and per thing that it could
// not look at. A missing bridge wraps ErrNotFound.
func (h *Links) VerifyBridge(ctx context.Context, b Bridge) error {
	if err := errors.Join(ctx.Err(), b.check()); err != nil {
		return err
	}
	d, err := bridge(h.conn, b.Name)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", b.Name, err)
	}
	var out diff
	if !d.up() {
		out.add("bridge %s is down", b.Name)
	}
	if b.MTU > 0 && d.mtu != b.MTU {
		out.add("bridge %s: MTU is %d, want %d", b.Name, d.mtu, b.MTU)
	}
	if b.Promisc && d.flags&unix.IFF_PROMISC == 0 {
		out.add("bridge %s: promiscuous mode is off", b.Name)
	}
	if b.VLANFiltering && !d.vlanFiltering {
		out.add("bridge %s: VLAN filtering is off", b.Name)
	}
	h.verifySettings(d, b, &out)
	holder := d
	if len(b.Gateways) > 0 {
		holder = h.verifyGateways(d, b, &out)
	}
	if holder != nil {
		h.verifyHostSide(holder, b, &out)
	}
	return errors.Join(out...)
}

// verifyGateways returns the interface that has the gateways; nil without it.
func (h *Links) verifyGateways(d *device, b Bridge, out *diff) *device {
	if b.VLAN > 0 {
		var err error
		if d, err = h.conn.device(b.vlanName()); err != nil {
			out.failed("VLAN interface "+b.vlanName(), err)
			return nil
		}
		if !d.up() {
			out.add("VLAN interface %s is down", d.name)
		}
	}
	as, err := h.conn.addrs(d.index, addrFamily(b.Gateways))
	if err != nil {
		out.failed(d.name, err)
		return d
	}
	for _, p := range b.Gateways {
		if !holds(as, p) {
			out.add("%s: address %s is missing", d.name, p)
		}
	}
	h.verifyPaths(d, as, b, out)
	return d
}

// Verify changes nothing and returns one joined error per difference between l
// and the kernel, which is ErrDifferent, and per thing that it could not look
// at. A nil MAC, an MTU of 0 and what a route leaves open are not compared. Of the
// settings only IPv6Off is: what keeps IPv6 safe where it is wanted, a plugin behind
// or the container itself may choose otherwise. A missing link wraps ErrNotFound.
func (h *Links) Verify(ctx context.Context, l Link) error {
	if err := errors.Join(ctx.Err(), l.check()); err != nil {
		return err
	}
	var out diff
	host := h.verifyHost(l, &out)
	if err := withConn(l.Netns, func(c *conn) error {
		cont := verifyContainer(c, l, &out)
		if host == nil || cont == nil {
			return nil
		}
		ours, err := h.isPeer(host, cont, l.Netns)
		if err == nil && !ours {
			out.add("interface %s is not the other end of %s", l.IfName, l.HostName)
		}
		if ours && host.master != 0 {
			h.verifyNeighbours(l, host.master, cont.mac, &out)
		}
		return err
	}); err != nil {
		out = append(out, err)
	}
	return errors.Join(out...)
}

func (h *Links) verifyHost(l Link, out *diff) *device {
	d, err := h.conn.device(l.HostName)
	if err != nil {
		out.failed("host interface "+l.HostName, err)
		return nil
	}
	at := "host interface " + l.HostName
	if d.alias != l.Owner {
		out.add("%s: alias is %q, want %q", at, d.alias, l.Owner)
	}
	if !d.up() {
		out.add("%s is down", at)
	}
	verifyMTU(at, d, l.MTU, out)
	br, err := bridge(h.conn, l.Bridge)
	if err != nil {
		out.failed("bridge "+l.Bridge, err)
		return d
	}
	if d.master != br.index {
		out.add("%s is not a port of %s", at, l.Bridge)
		return d
	}
	if l.Hairpin && !d.hairpin { // a plugin behind us that publishes ports may have switched it on
		out.add("%s: hairpin is false, want true", at)
	}
	if d.isolated != l.Isolated {
		out.add("%s: isolated is %t, want %t", at, d.isolated, l.Isolated)
	}
	verifyPort(at, d, br, out)
	verifyVLANs(h.conn, at, d.index, l, out)
	return d
}

func verifyContainer(c *conn, l Link, out *diff) *device {
	at := "interface " + l.IfName
	d, err := c.device(l.IfName)
	if err != nil {
		out.failed(at+" in "+l.Netns.Path(), err)
		return nil
	}
	if l.MAC != nil && l.MAC.String() != d.mac.String() {
		out.add("%s: MAC is %s, want %s", at, d.mac, l.MAC)
	}
	verifyMTU(at, d, l.MTU, out)
	if l.IPv6 == IPv6Off && d.v6.known && !d.v6.disabled {
		out.add("sysctl %s in %s is 0, want 1", sysctlName(ipv6Conf(l.IfName, "disable_ipv6")), l.Netns.Path())
	}
	if l.Down {
		return d
	}
	if !d.up() {
		out.add("%s is down", at)
	}
	if len(l.Addrs) > 0 {
		as, err := c.addrs(d.index, addrFamily(l.Addrs))
		if err != nil {
			out.failed(at, err)
			return d
		}
		for _, p := range l.Addrs {
			if !holds(as, p) {
				out.add("%s: address %s is missing", at, p)
			}
		}
	}
	verifyRoutes(c, at, d.index, l.Routes, out)
	return d
}

// verifyRoutes lists each table and family once.
func verifyRoutes(c *conn, at string, index int, want []Route, out *diff) {
	have := map[routeTable][]route{}
	for _, w := range want {
		k := routeTable{family(w.Dst.Addr()), w.table()}
		if _, ok := have[k]; !ok {
			rs, err := c.routes(k.family, index, k.table)
			if err != nil {
				out.failed(at, err)
				return
			}
			have[k] = rs
		}
		same := slices.DeleteFunc(slices.Clone(have[k]), func(r route) bool { return r.dst != w.Dst.Masked() })
		switch {
		case slices.ContainsFunc(same, w.matches):
		case len(same) == 0:
			verifyMoved(c, at, index, w, out)
		default:
			out.add("%s: route %s is changed: gateway %s, MTU %d, advmss %d, priority %d, scope %d",
				at, &w, same[0].gateway, same[0].mtu, same[0].advMSS, same[0].priority, same[0].scope)
		}
	}
}

// verifyMoved looks for a route in the other tables. A plugin for source routing
// (sbr) or VRFs puts an interface's routes into a table of its own, to which a
// rule leads.
func verifyMoved(c *conn, at string, index int, w Route, out *diff) {
	if w.Table == 0 {
		rs, err := c.routes(family(w.Dst.Addr()), index, 0)
		if err != nil {
			out.failed(at, err)
			return
		}
		if slices.ContainsFunc(rs, func(r route) bool { return r.dst == w.Dst.Masked() && w.matches(r) }) {
			return
		}
	}
	out.add("%s: route %s is missing", at, &w)
}
