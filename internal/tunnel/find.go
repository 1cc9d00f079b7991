package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

// EntryState says how one thing that is wanted is in the kernel.
type EntryState string

// The states.
const (
	EntryPresent   EntryState = "present"
	EntryMissing   EntryState = "missing"
	EntryDiffering EntryState = "differing"
)

// Entry is the state of one thing that is wanted. Instead is what stands in its
// place, empty unless that differs.
type Entry struct {
	State   EntryState
	Instead string
}

// Found is what the kernel has of a Tunnel.
type Found struct {
	// MTU of the device in bytes; 0: there is no device.
	MTU int
	// Device is one error per difference of the device itself. A missing one
	// wraps ErrNotFound.
	Device []error
	// These are in the order of the Tunnel's own; Peers in that of its Secure.
	Routes, Neighbours, FDB, Direct, Peers []Entry
}

// FindTunnel changes nothing and says for each part of t how it is in the kernel.
func (h *Tunnels) FindTunnel(ctx context.Context, t Tunnel) (Found, error) {
	var f Found
	if err := errors.Join(ctx.Err(), t.check()); err != nil {
		return f, err
	}
	d, diffs, err := h.deviceDiffs(t)
	f.Device = diffs
	var have tunnelState
	var peers []wireguard.Peer
	switch {
	case errors.Is(err, netlink.ErrNotFound):
		f.Device = []error{err}
	case err != nil:
		return f, err
	default:
		f.MTU = d.MTU
		if have, err = readTunnel(h.conn, d, t); err != nil {
			return f, fmt.Errorf("tunnel %s: %w", t.Name, err)
		}
		if t.Secure != nil {
			peers = h.findSecure(d, t, &f)
		}
	}
	if t.Secure != nil {
		f.Peers = findPeers(t.Secure.Peers, peers)
	}
	if err := h.findDirect(t, have.direct, &f); err != nil {
		return f, err
	}
	f.Routes, err = findRoutes(h.conn, t.Routes, have.routes)
	f.Neighbours = findEntries(t.Neighbours, have.neighbours,
		func(n Neighbour) netip.Addr { return n.Addr }, func(n Neighbour) string { return n.MAC.String() })
	f.FDB = findEntries(t.FDB, have.fdb,
		func(e FDBEntry) MAC { return e.MAC }, func(e FDBEntry) string { return e.Remote.String() })
	return f, err
}

// findSecure returns the peers of a device, and adds how keys and port differ.
func (h *Tunnels) findSecure(d *netlink.Device, t Tunnel, f *Found) []wireguard.Peer {
	have, err := t.Secure.device(d).Read()
	if err != nil {
		f.Device = append(f.Device, fmt.Errorf("tunnel %s: %w", t.Name, err))
		return nil
	}
	var out netlink.Diff
	own := t
	own.Secure = &Secure{PrivateKey: t.Secure.PrivateKey, PublicKey: t.Secure.PublicKey, Peers: have.Peers}
	own.compareSecure("tunnel "+t.Name, have, &out)
	h.compareUnreachable("tunnel "+t.Name, t, &out)
	f.Device = append(f.Device, out...)
	return have.Peers
}

// findPeers says for each peer whether the device has it, and what it has instead.
func findPeers(want, have []wireguard.Peer) []Entry {
	all := make([]Entry, len(want))
	for i, w := range want {
		all[i].State = EntryMissing
		for _, h := range have {
			if h.PublicKey != w.PublicKey {
				continue
			}
			all[i].State = EntryPresent
			if !h.Same(w) {
				all[i] = Entry{EntryDiffering, fmt.Sprintf("%s with %v", h.Endpoint, h.Allowed)}
			}
		}
	}
	return all
}

// findEntries looks for each wanted thing; one with the same key and another
// value differs.
func findEntries[T, K comparable](want, have []T, key func(T) K, value func(T) string) []Entry {
	there := make(map[K]T, len(have))
	for _, e := range have {
		there[key(e)] = e
	}
	all := make([]Entry, len(want))
	for i, w := range want {
		h, ok := there[key(w)]
		switch {
		case !ok:
			all[i].State = EntryMissing
		case h == w:
			all[i].State = EntryPresent
		default:
			all[i] = Entry{EntryDiffering, value(h)}
		}
	}
	return all
}

// findRoutes asks the host's table for what does not lead by the tunnel.
func findRoutes(c *netlink.Conn, want, have []Route) ([]Entry, error) {
	all := findEntries(want, have, func(r Route) netip.Prefix { return r.Dst }, func(r Route) string {
		if !r.Via.IsValid() {
			return "without a gateway"
		}
		return "via " + r.Via.String()
	})
	for i, e := range all {
		if e.State != EntryMissing {
			continue
		}
		to := want[i].Via
		if !to.IsValid() {
			to = want[i].Dst.Addr()
		}
		r, err := c.RouteTo(to, 0)
		if err != nil || r.Dst != want[i].Dst {
			continue // no route, or that of a net around it: the route is missing
		}
		d, err := c.DeviceByIndex(r.OIF)
		if err != nil {
			return all, err
		}
		all[i] = Entry{EntryDiffering, "by " + d.Name}
		if r.Gateway.IsValid() {
			all[i].Instead = fmt.Sprintf("via %s by %s", r.Gateway, d.Name)
		}
	}
	return all, nil
}
