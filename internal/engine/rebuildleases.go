package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// adoption has the addresses of an attachment leased to it.
func adoption(rec state.Endpoint) ipamstore.Adoption {
	id := idOf(rec)
	a := ipamstore.Adoption{Holder: ipamstore.Holder{Owner: storeOwner(id), Netns: rec.Netns}, Addrs: addrsOf(rec)}
	a.NetnsID = tokenOf(holderOfRecord(rec))
	return a
}

// leases leases to every attachment with a record the addresses it has.
func (r *rebuilder) leases(ctx context.Context) error {
	networks, err := r.c.endpoints.EndpointNetworks()
	errs := []error{err}
	for _, network := range networks {
		recs, err := r.c.endpoints.Endpoints(network)
		errs = append(errs, err)
		held := map[string]map[netip.Addr]ipamstore.Owner{} // by directory
		for _, rec := range recs {
			if rec.IPAM != PoolType || len(rec.Addresses) == 0 || r.c.dead(rec) {
				continue
			}
			pool, err := NewPool(ipamstore.Config{Network: network, DataDir: rec.DataDir}, model.Addressing{})
			if err == nil && held[rec.DataDir] == nil {
				held[rec.DataDir], err = pool.Held(ctx)
			}
			if err == nil && slices.ContainsFunc(addrsOf(rec), func(a netip.Addr) bool { return !holds(held[rec.DataDir][a], rec) }) {
				err = r.lease(ctx, pool, rec)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// holds says that a lease is the attachment's. Old ones name no interface.
func holds(o ipamstore.Owner, rec state.Endpoint) bool {
	return o.ContainerID == rec.ContainerID && (o.IfName == rec.IfName || o.IfName == "")
}

// lease leases to an attachment what it has, unless it is removed meanwhile.
func (r *rebuilder) lease(ctx context.Context, pool *Pool, rec state.Endpoint) error {
	id := idOf(rec)
	release, err := r.c.endpoints.Own(ctx, id.Network, id.ContainerID, id.IfName, state.OnlyExisting)
	if err != nil {
		return err
	}
	defer release()
	rec, err = r.c.endpoints.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return r.adopt(ctx, pool, id, adoption(rec))
}

func (r *rebuilder) adopt(ctx context.Context, pool *Pool, id model.ID, a ipamstore.Adoption) error {
	made, err := pool.Adopt(ctx, []ipamstore.Adoption{a})
	if len(made) > 0 {
		r.done = append(r.done, id)
	}
	return err
}

// leaseAlone leases the addresses of an attachment that gets no record.
func (r *rebuilder) leaseAlone(ctx context.Context, id model.ID, f link.Found) error {
	if len(f.Addrs) == 0 {
		return nil
	}
	cfg := ipamstore.Config{Network: id.Network, DataDir: r.c.dataDir}
	if n, err := r.c.Network(id.Network); err == nil {
		kind, dir := n.leaseDir()
		if kind != PoolType {
			return nil
		}
		cfg.DataDir = dir
	}
	pool, err := NewPool(cfg, model.Addressing{})
	if err != nil {
		return err
	}
	return r.adopt(ctx, pool, id, adoptionOf(id, f))
}

// adoptionOf is adoption for an attachment that has no record.
func adoptionOf(id model.ID, f link.Found) ipamstore.Adoption {
	rec := state.Endpoint{Network: id.Network, ContainerID: id.ContainerID, IfName: id.IfName}
	for _, p := range f.Addrs {
		rec.Addresses = append(rec.Addresses, state.Address{Prefix: p})
	}
	if ns, err := netnsID(f.Netns); err == nil {
		rec.Netns, rec.NetnsID, rec.MountNS = f.Netns, state.NetnsID(ns), mountNS()
	}
	return adoption(rec)
}

// keepLost is for before the network's pool gives an address: if the pool has
// no lease at all, but may have lost some, what living attachments have is
// leased to them first, by their records and their links. A pool that has some
// leases costs no more than a look at its index.
func (n *Network) keepLost(ctx context.Context, self model.ID) error {
	pool, ok := n.ipam.(*Pool)
	if !ok || !pool.Blank() {
		return nil
	}
	living, err := n.living(ctx, pool)
	if err != nil {
		return fmt.Errorf("network %q: look for addresses in use, as there are no leases: %w", n.name, err)
	}
	if len(living) == 0 {
		return nil
	}
	// All at once: a pool with some leases looks whole to other calls.
	made, err := pool.Adopt(ctx, living)
	if errors.Is(err, ipamstore.ErrTaken) { // and so is not given away
		err = nil
	}
	return errors.Join(err, n.dropGone(ctx, pool, self, made))
}

// maxGone is how long an ADD waits for another call that may end an attachment.
const maxGone = 2 * time.Second

// dropGone takes back what was leased anew to attachments that ended meanwhile: a DEL
// gives the lease back while it owns the attachment, so that is asked once more as
// its owner. The caller owns self. What another call owns for long is left to it, and
// to GC.
func (n *Network) dropGone(ctx context.Context, pool *Pool, self model.ID, made []ipamstore.Owner) error {
	waiting, cancel := context.WithTimeout(ctx, maxGone)
	defer cancel()
	var errs []error
	for _, o := range made {
		id := model.ID{Network: n.name, ContainerID: o.ContainerID, IfName: o.IfName}
		if id == self {
			continue
		}
		release, err := n.c.endpoints.Own(waiting, id.Network, id.ContainerID, id.IfName, state.OnlyExisting)
		if err != nil {
			continue
		}
		ended, err := n.ended(ctx, id)
		if ended && err == nil {
			err = pool.Remove(ctx, id)
		}
		release()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ended says that an attachment has neither a record nor a link.
func (n *Network) ended(ctx context.Context, id model.ID) (bool, error) {
	_, err := n.c.endpoints.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
	if !missing(err) {
		return false, nil
	}
	links, err := n.c.attachments(ctx, id.String())
	_, linked := links[id]
	return !linked, err
}

// living returns what attachments of the network have that is not provably dead.
func (n *Network) living(ctx context.Context, pool *Pool) ([]ipamstore.Adoption, error) {
	recs, err := n.c.endpoints.Endpoints(n.name)
	if err != nil && !errors.Is(err, state.ErrCorrupt) { // set aside; the link tells
		return nil, err
	}
	links, err := n.c.attachments(ctx, model.NetworkOwner(n.name))
	if err != nil {
		return nil, err
	}
	var all []ipamstore.Adoption
	for _, rec := range recs {
		delete(links, idOf(rec))
		if rec.IPAM == PoolType && rec.DataDir == pool.DataDir() && len(rec.Addresses) > 0 && !n.c.dead(rec) {
			all = append(all, adoption(rec))
		}
	}
	if len(links) == 0 {
		return all, nil
	}
	ns, err := n.c.finder.Namespaces()
	if err != nil {
		return nil, err
	}
	for id, o := range links {
		f, err := n.c.finder.Find(ctx, o, ns)
		if errors.Is(err, netlink.ErrNotFound) {
			continue // gone meanwhile
		}
		if err != nil {
			return nil, err
		}
		if len(f.Addrs) > 0 {
			all = append(all, adoptionOf(id, f))
		}
	}
	return all, nil
}
