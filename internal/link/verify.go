package link

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
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
	var out netlink.Diff
	if !d.Up() {
		out.Add("bridge %s is down", b.Name)
	}
	if b.MTU > 0 && d.MTU != b.MTU {
		out.Add("bridge %s: MTU is %d, want %d", b.Name, d.MTU, b.MTU)
	}
	if b.Promisc && d.Flags&unix.IFF_PROMISC == 0 {
		out.Add("bridge %s: promiscuous mode is off", b.Name)
	}
	if b.VLANFiltering && !d.VLANFiltering {
		out.Add("bridge %s: VLAN filtering is off", b.Name)
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
func (h *Links) verifyGateways(d *netlink.Device, b Bridge, out *netlink.Diff) *netlink.Device {
	if b.VLAN > 0 {
		var err error
		if d, err = h.conn.Device(b.vlanName()); err != nil {
			out.Failed("VLAN interface "+b.vlanName(), err)
			return nil
		}
		if !d.Up() {
			out.Add("VLAN interface %s is down", d.Name)
		}
	}
	as, err := h.conn.Addrs(d.Index, netlink.AddrFamily(b.Gateways))
	if err != nil {
		out.Failed(d.Name, err)
		return d
	}
	for _, p := range b.Gateways {
		if !netlink.Holds(as, p) {
			out.Add("%s: address %s is missing", d.Name, p)
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
	var out netlink.Diff
	host := h.verifyHost(l, &out)
	if err := h.conn.Of(l.Netns, func(c *netlink.Conn) error {
		cont := verifyContainer(c, l, &out)
		if host == nil || cont == nil {
			return nil
		}
		ours, err := h.isPeer(host, cont, l.Netns)
		if err == nil && !ours {
			out.Add("interface %s is not the other end of %s", l.IfName, l.HostName)
		}
		if ours && host.Master != 0 {
			h.verifyNeighbours(l, host.Master, cont.MAC, &out)
		}
		return err
	}); err != nil {
		out = append(out, err)
	}
	return errors.Join(out...)
}

func (h *Links) verifyHost(l Link, out *netlink.Diff) *netlink.Device {
	d, err := h.conn.Device(l.HostName)
	if err != nil {
		out.Failed("host interface "+l.HostName, err)
		return nil
	}
	at := "host interface " + l.HostName
	if d.Alias != l.Owner {
		out.Add("%s: alias is %q, want %q", at, d.Alias, l.Owner)
	}
	if !d.Up() {
		out.Add("%s is down", at)
	}
	if d.Group == groupGoing {
		out.Add("%s is being removed: a DEL of it has begun, and not ended", at)
	}
	netlink.VerifyMTU(at, d, l.MTU, out)
	br, err := bridge(h.conn, l.Bridge)
	if err != nil {
		out.Failed("bridge "+l.Bridge, err)
		return d
	}
	if d.Master != br.Index {
		out.Add("%s is not a port of %s", at, l.Bridge)
		return d
	}
	if l.Hairpin && !d.Hairpin { // a plugin behind us that publishes ports may have switched it on
		out.Add("%s: hairpin is false, want true", at)
	}
	if d.Isolated != l.Isolated {
		out.Add("%s: isolated is %t, want %t", at, d.Isolated, l.Isolated)
	}
	verifyPort(at, d, br, out)
	verifyVLANs(h.conn, at, d.Index, l, out)
	return d
}

func verifyContainer(c *netlink.Conn, l Link, out *netlink.Diff) *netlink.Device {
	at := "interface " + l.IfName
	d, err := c.Device(l.IfName)
	if err != nil {
		out.Failed(at+" in "+l.Netns.Path(), err)
		return nil
	}
	if l.MAC != nil && l.MAC.String() != d.MAC.String() {
		out.Add("%s: MAC is %s, want %s", at, d.MAC, l.MAC)
	}
	netlink.VerifyMTU(at, d, l.MTU, out)
	if l.IPv6 == host.IPv6Off && d.V6.Known && !d.V6.Disabled {
		out.Add("sysctl %s in %s is 0, want 1", host.SysctlName(host.IPv6Conf(l.IfName, "disable_ipv6")), l.Netns.Path())
	}
	if l.Down {
		return d
	}
	if !d.Up() {
		out.Add("%s is down", at)
	}
	if len(l.Addrs) > 0 {
		as, err := c.Addrs(d.Index, netlink.AddrFamily(l.Addrs))
		if err != nil {
			out.Failed(at, err)
			return d
		}
		for _, p := range l.Addrs {
			if !netlink.Holds(as, p) {
				out.Add("%s: address %s is missing", at, p)
			}
		}
	}
	verifyRoutes(c, at, d.Index, l.Routes, out)
	return d
}

// verifyRoutes lists each table and family once.
func verifyRoutes(c *netlink.Conn, at string, index int, want []Route, out *netlink.Diff) {
	have := map[routeTable][]netlink.Route{}
	for _, w := range want {
		k := routeTable{netlink.Family(w.Dst.Addr()), w.table()}
		if _, ok := have[k]; !ok {
			rs, err := c.Routes(k.family, index, k.table)
			if err != nil {
				out.Failed(at, err)
				return
			}
			have[k] = rs
		}
		same := slices.DeleteFunc(slices.Clone(have[k]), func(r netlink.Route) bool { return r.Dst != w.Dst.Masked() })
		switch {
		case slices.ContainsFunc(same, w.matches):
		case len(same) == 0:
			verifyMoved(c, at, index, w, out)
		default:
			out.Add("%s: route %s is changed: gateway %s, MTU %d, advmss %d, priority %d, scope %d",
				at, &w, same[0].Gateway, same[0].MTU, same[0].AdvMSS, same[0].Priority, same[0].Scope)
		}
	}
}

// verifyMoved looks for a route in the other tables. A plugin for source routing
// (sbr) or VRFs puts an interface's routes into a table of its own, to which a
// rule leads.
func verifyMoved(c *netlink.Conn, at string, index int, w Route, out *netlink.Diff) {
	if w.Table == 0 {
		rs, err := c.Routes(netlink.Family(w.Dst.Addr()), index, 0)
		if err != nil {
			out.Failed(at, err)
			return
		}
		if slices.ContainsFunc(rs, func(r netlink.Route) bool { return r.Dst == w.Dst.Masked() && w.matches(r) }) {
			return
		}
	}
	out.Add("%s: route %s is missing", at, &w)
}

// CanSetUp says which setting under /proc/sys keeps EnsureBridge from making the bridge, or
// the host from forwarding as b says: it is wrong, and not writable. It changes nothing. The
// error wraps host.ErrReadOnly.
func (h *Links) CanSetUp(b Bridge) error {
	var errs []error
	forward := func(needed bool, path string) {
		if !needed {
			return
		}
		if err := h.host.Sysctls.CanSet(path, "1"); errors.Is(err, host.ErrReadOnly) {
			errs = append(errs, err)
		}
	}
	forward(b.ForwardIPv4, host.ForwardV4)
	forward(b.ForwardIPv6, host.ForwardV6)
	if _, err := bridge(h.conn, b.Name); errors.Is(err, netlink.ErrNotFound) {
		if b.Isolated {
			b.IPv6 = host.IPv6Off
		}
		errs = append(errs, h.host.Sysctls.CanOwnIPv6(b.IPv6, b.needsIPv6() && b.VLAN == 0))
	}
	return errors.Join(errs...)
}
