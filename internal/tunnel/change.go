package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// Mended is what MendTunnel did.
type Mended struct {
	// Up: the device is there and set up.
	Up bool
	// Created: there was no such device, or one that had to be made anew.
	Created bool
	// Changes counts the addresses and entries that were added or deleted.
	Changes int
	// Lacking counts the hosts of which an entry could not be added.
	Lacking int
}

// MendTunnel is EnsureTunnel for a caller that comes again and again: what cannot be done
// keeps nothing else from being done, and what was made stays. The errors of
// what could not are joined.
func (h *Tunnels) MendTunnel(ctx context.Context, t Tunnel) (m Mended, err error) {
	if err := errors.Join(ctx.Err(), t.check()); err != nil {
		return m, err
	}
	var u netlink.Undo // a device is not half made when it lacks an entry, but when it is down
	d, made, _, err := h.ensureDevice(t, &u)
	if err == nil {
		if err = h.adjustTunnel(d, t, made); err != nil {
			err = errors.Join(err, u.Run())
		}
	}
	var have tunnelState
	if err == nil && !made {
		have, err = readTunnel(h.conn, d, t)
	}
	if err != nil {
		return Mended{Lacking: t.peers()}, fmt.Errorf("tunnel %s: %w", t.Name, err)
	}
	m.Up, m.Created = true, made
	lacking := map[MAC]bool{}
	var errs []error
	for _, s := range h.changes(d, t, have) {
		if err := s.do(); err != nil {
			errs = append(errs, fmt.Errorf("tunnel %s: %w", t.Name, err))
			lacking[s.mac] = true
			continue
		}
		m.Changes++
	}
	delete(lacking, MAC{})
	m.Lacking = len(lacking)
	return m, errors.Join(errs...)
}

// peers is how many other hosts the tunnel leads to.
func (t *Tunnel) peers() int {
	if t.Secure != nil {
		return len(t.Secure.Peers)
	}
	return len(t.FDB)
}

// change is one of a tunnel's addresses or entries to be added or deleted.
type change struct {
	mac MAC // of the host that cannot be reached without it; zero: none
	do  func() error
}

// changes returns what is missing, in the order in which it is needed, and then
// what is too much. Only addresses go before routes come: one that is still our
// own cannot be a gateway.
func (h *Tunnels) changes(d *netlink.Device, t Tunnel, have tunnelState) []change {
	var all []change
	add := func(mac MAC, do func() error) { all = append(all, change{mac, do}) }
	for _, p := range t.Addrs {
		if !netlink.Holds(have.addrs, p) {
			add(MAC{}, func() error { return ignore(h.conn.AddAddr(d.Index, p, false), netlink.ErrExists) })
		}
	}
	wanted := make(map[netip.Prefix]bool, len(t.Addrs))
	for _, p := range t.Addrs {
		wanted[p] = true
	}
	for _, a := range have.addrs {
		if !wanted[a.Prefix] && !a.Prefix.Addr().IsLinkLocalUnicast() {
			add(MAC{}, func() error { return unlessGone(h.conn.RemoveAddr(d.Index, a.Prefix)) })
		}
	}
	fdb, oldFDB := differ(t.FDB, have.fdb)
	neighbours, oldNeighbours := differ(t.Neighbours, have.neighbours)
	routes, oldRoutes := differ(t.Routes, have.routes)
	for _, e := range fdb {
		add(e.MAC, func() error { return changeFDB(h.conn, unix.RTM_NEWNEIGH, d.Index, e) })
	}
	for _, n := range neighbours {
		add(n.MAC, func() error { return changeNeighbour(h.conn, unix.RTM_NEWNEIGH, d.Index, n) })
	}
	macs := make(map[netip.Addr]MAC, len(t.Neighbours))
	for _, n := range t.Neighbours {
		macs[n.Addr] = n.MAC
	}
	for _, r := range routes {
		add(macs[r.Via], func() error { return addTunnelRoute(h.conn, d.Index, r, t) })
	}
	direct, oldDirect := differ(t.Direct, have.direct)
	for _, r := range direct {
		add(macs[r.Dst.Addr()], func() error { return addDirect(h.conn, r) })
	}
	old := tunnelState{routes: oldRoutes, neighbours: oldNeighbours, fdb: oldFDB, direct: oldDirect}
	return append(all, h.surplus(d, t, old, macs)...)
}

// surplus returns the deletions of old, which is there and not wanted. A
// neighbour or forwarding entry whose address is wanted was replaced.
func (h *Tunnels) surplus(d *netlink.Device, t Tunnel, old tunnelState, macs map[netip.Addr]MAC) []change {
	var all []change
	del := func(do func() error) {
		all = append(all, change{do: func() error { return unlessGone(do()) }})
	}
	for _, r := range old.routes {
		if t.leadsElsewhere(r.Dst) || t.leadsPast(r.Dst) {
			continue // another one takes its place: without it for a moment, packets would be lost
		}
		del(func() error { return changeTunnelRoute(h.conn, unix.RTM_DELROUTE, 0, d.Index, r) })
	}
	for _, r := range old.direct {
		if !t.leadsPast(r.Dst) && !t.leadsTo(r.Dst) {
			del(func() error { return removeDirect(h.conn, r) })
		}
	}
	for _, n := range old.neighbours {
		if _, wanted := macs[n.Addr]; !wanted {
			del(func() error { return changeNeighbour(h.conn, unix.RTM_DELNEIGH, d.Index, n) })
		}
	}
	remotes := make(map[MAC]bool, len(t.FDB))
	for _, e := range t.FDB {
		remotes[e.MAC] = true
	}
	for _, e := range old.fdb {
		if !remotes[e.MAC] {
			del(func() error { return changeFDB(h.conn, unix.RTM_DELNEIGH, d.Index, e) })
		}
	}
	return all
}

// unlessGone returns nil for what the kernel answers where something is deleted that is not there.
func unlessGone(err error) error {
	return ignore(err, netlink.ErrNotFound, unix.ESRCH, unix.EADDRNOTAVAIL)
}

// ignore returns nil for an error that is one of these.
func ignore(err error, these ...error) error {
	for _, e := range these {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}
