package operator

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// leases leases to every attachment with a record the addresses it has.
func (r *rebuilder) leases(ctx context.Context) error {
	networks, err := r.o.dir.EndpointNetworks()
	errs := []error{err}
	for _, network := range networks {
		recs, err := r.o.dir.Endpoints(network)
		errs = append(errs, err)
		held := map[string]map[netip.Addr]ipamstore.Owner{} // by directory
		for _, rec := range recs {
			if rec.IPAM != address.PoolType || len(rec.Addresses) == 0 || r.o.dead(rec) {
				continue
			}
			pool, err := address.NewPool(ipamstore.Config{Network: network, DataDir: rec.DataDir}, model.Addressing{})
			if err == nil && held[rec.DataDir] == nil {
				held[rec.DataDir], err = pool.Held(ctx)
			}
			if err == nil && slices.ContainsFunc(rec.Addrs(), func(a netip.Addr) bool { return !holds(held[rec.DataDir][a], rec) }) {
				err = r.lease(ctx, pool, rec)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// lease leases to an attachment what it has, unless it is removed meanwhile.
func (r *rebuilder) lease(ctx context.Context, pool *address.Pool, rec state.Endpoint) error {
	id := life.IDOf(rec)
	release, err := r.o.dir.Own(ctx, id.Network, id.ContainerID, id.IfName, state.OnlyExisting)
	if err != nil {
		return err
	}
	defer release()
	rec, err = r.o.dir.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
	if state.Missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return r.adopt(ctx, pool, id, address.AdoptionOf(rec))
}

func (r *rebuilder) adopt(ctx context.Context, pool *address.Pool, id model.ID, a ipamstore.Adoption) error {
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
	cfg := ipamstore.Config{Network: id.Network, DataDir: r.o.DataDir}
	if n, err := r.o.Network(id.Network); err == nil {
		kind, dir := n.LeaseDir()
		if kind != address.PoolType {
			return nil
		}
		cfg.DataDir = dir
	}
	pool, err := address.NewPool(cfg, model.Addressing{})
	if err != nil {
		return err
	}
	return r.adopt(ctx, pool, id, address.AdoptionOfLink(id, f))
}

// holds says that a lease is the attachment's. Old ones name no interface.
func holds(o ipamstore.Owner, rec state.Endpoint) bool {
	return o.ContainerID == rec.ContainerID && (o.IfName == rec.IfName || o.IfName == "")
}
