package tunnel

import (
	"context"
	"errors"
	"fmt"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
)

// VerifyTunnel changes nothing and returns one joined error per difference
// between t and the kernel: what is missing, and what is there without being
// asked for. An MTU of 0 is not compared. A missing device wraps ErrNotFound.
func (h *Tunnels) VerifyTunnel(ctx context.Context, t Tunnel) error {
	if err := errors.Join(ctx.Err(), t.check()); err != nil {
		return err
	}
	at := "tunnel " + t.Name
	d, out, err := h.deviceDiffs(t)
	if err != nil {
		return err
	}
	if t.Secure != nil {
		h.compareUnreachable(at, t, &out)
		if have, err := t.Secure.device(d).Read(); err != nil {
			out.Failed(at, err)
		} else {
			t.compareSecure(at, have, &out)
		}
	}
	have, err := readTunnel(h.conn, d, t)
	if err != nil {
		out = append(out, fmt.Errorf("%s: %w", at, err))
		return errors.Join(out...)
	}
	t.compare(at, have, &out)
	return errors.Join(out...)
}

// deviceDiffs returns the device and how it, but not its entries, differs.
func (h *Tunnels) deviceDiffs(t Tunnel) (*netlink.Device, netlink.Diff, error) {
	at := "tunnel " + t.Name
	d, err := h.conn.Device(t.Name)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", at, err)
	}
	lower := 0
	if t.Device != "" {
		if under, err := h.conn.Device(t.Device); err == nil {
			lower = under.Index
		}
	}
	out := t.deviceDiff(d, lower)
	if d.Alias != t.Alias {
		out.Add("%s: alias is %q, want %q", at, d.Alias, t.Alias)
	}
	if !d.Up() {
		out.Add("%s is down", at)
	}
	netlink.VerifyMTU(at, d, t.MTU, &out)
	halts, err := t.halts(d)
	if err != nil {
		out.Failed(at, err)
	}
	if halts {
		out.Add("%s does not forward IPv4: sysctl %s is 0, want 1", at, host.SysctlName("net/ipv4/conf/"+d.Name+"/forwarding"))
	}
	return d, out, nil
}

func (t *Tunnel) compare(at string, have tunnelState, out *netlink.Diff) {
	for _, p := range t.Addrs {
		if !netlink.Holds(have.addrs, p) {
			out.Add("%s: address %s is missing", at, p)
		}
	}
	routes, oldRoutes := differ(t.Routes, have.routes)
	for _, r := range routes {
		out.Add("%s: route %s is missing", at, r)
	}
	for _, r := range oldRoutes {
		if t.leadsElsewhere(r.Dst) {
			continue // about to move
		}
		out.Add("%s: route %s leads to no host of the network", at, r)
	}
	direct, oldDirect := differ(t.Direct, have.direct)
	for _, r := range direct {
		out.Add("%s: route %s is missing", at, r)
	}
	for _, r := range oldDirect {
		out.Add("%s: route %s leads to no host of the network", at, r)
	}
	neighbours, oldNeighbours := differ(t.Neighbours, have.neighbours)
	for _, n := range neighbours {
		out.Add("%s: neighbour %s %s is missing", at, n.Addr, n.MAC)
	}
	for _, n := range oldNeighbours {
		out.Add("%s: neighbour %s %s is of no host of the network", at, n.Addr, n.MAC)
	}
	fdb, oldFDB := differ(t.FDB, have.fdb)
	for _, e := range fdb {
		out.Add("%s: forwarding entry %s to %s is missing", at, e.MAC, e.Remote)
	}
	for _, e := range oldFDB {
		out.Add("%s: forwarding entry %s to %s is of no host of the network", at, e.MAC, e.Remote)
	}
}
