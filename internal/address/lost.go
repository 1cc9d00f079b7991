package address

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// Lost finds what the living attachments of a network have, for a pool whose leases may
// be lost.
type Lost struct {
	Network string
	Boot    string // boot ID
	Records Records
	Links   life.Links
	Finder  Finder
}

// The parts that Lost looks at: records, and links with their containers.
type (
	Records interface {
		Own(ctx context.Context, network, containerID, ifName string, create state.Creation) (release func(), err error)
		LoadEndpoint(network, containerID, ifName string) (state.Endpoint, error)
		Endpoints(network string) ([]state.Endpoint, error)
	}
	Finder interface {
		Namespaces() (link.Namespaces, error)
		Find(context.Context, link.Owned, link.Namespaces) (link.Found, error)
	}
)

// Keep is for before the network's pool gives an address: if the pool has
// no lease at all, but may have lost some, what living attachments have is
// leased to them first, by their records and their links. A pool that has some
// leases costs no more than a look at its index.
func (l Lost) Keep(ctx context.Context, pool *Pool, self model.ID) error {
	if !pool.Blank() {
		return nil
	}
	living, err := l.living(ctx, pool)
	if err != nil {
		return fmt.Errorf("network %q: look for addresses in use, as there are no leases: %w", l.Network, err)
	}
	if len(living) == 0 {
		return nil
	}
	// All at once: a pool with some leases looks whole to other calls.
	made, err := pool.Adopt(ctx, living)
	if errors.Is(err, ipamstore.ErrTaken) { // and so is not given away
		err = nil
	}
	return errors.Join(err, l.dropGone(ctx, pool, self, made))
}

// maxGone is how long an ADD waits for another call that may end an attachment.
const maxGone = 2 * time.Second

// dropGone takes back what was leased anew to attachments that ended meanwhile: a DEL
// gives the lease back while it owns the attachment, so that is asked once more as
// its owner. The caller owns self. An attachment that another call owns for long is left
// to that call, and to GC.
func (l Lost) dropGone(ctx context.Context, pool *Pool, self model.ID, made []ipamstore.Owner) error {
	waiting, cancel := context.WithTimeout(ctx, maxGone)
	defer cancel()
	var errs []error
	for _, o := range made {
		id := model.ID{Network: l.Network, ContainerID: o.ContainerID, IfName: o.IfName}
		if id == self {
			continue
		}
		release, err := l.Records.Own(waiting, id.Network, id.ContainerID, id.IfName, state.OnlyExisting)
		if err != nil {
			continue
		}
		ended, err := l.ended(ctx, id)
		if ended && err == nil {
			err = pool.Remove(ctx, id)
		}
		release()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ended says that an attachment has neither a record nor a link.
func (l Lost) ended(ctx context.Context, id model.ID) (bool, error) {
	_, err := l.Records.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
	if !state.Missing(err) {
		return false, nil
	}
	links, err := life.LinksOf(ctx, l.Links, id.String())
	_, linked := links[id]
	return !linked, err
}

// living returns what attachments of the network have that is not provably dead.
func (l Lost) living(ctx context.Context, pool *Pool) ([]ipamstore.Adoption, error) {
	recs, err := l.Records.Endpoints(l.Network)
	if err != nil && !errors.Is(err, state.ErrCorrupt) { // set aside; the link tells
		return nil, err
	}
	links, err := life.LinksOf(ctx, l.Links, model.NetworkOwner(l.Network))
	if err != nil {
		return nil, err
	}
	var all []ipamstore.Adoption
	for _, rec := range recs {
		delete(links, life.IDOf(rec))
		if rec.IPAM == PoolType && rec.DataDir == pool.DataDir() && len(rec.Addresses) > 0 && !life.OfRecord(rec).Dead(l.Boot) {
			all = append(all, AdoptionOf(rec))
		}
	}
	if len(links) == 0 {
		return all, nil
	}
	ns, err := l.Finder.Namespaces()
	if err != nil {
		return nil, err
	}
	for id, o := range links {
		f, err := l.Finder.Find(ctx, o, ns)
		if errors.Is(err, netlink.ErrNotFound) {
			continue // gone meanwhile
		}
		if err != nil {
			return nil, err
		}
		if len(f.Addrs) > 0 {
			all = append(all, AdoptionOfLink(id, f))
		}
	}
	return all, nil
}

// AdoptionOf has the addresses of an attachment leased to it.
func AdoptionOf(rec state.Endpoint) ipamstore.Adoption {
	id := life.IDOf(rec)
	a := ipamstore.Adoption{Holder: ipamstore.Holder{Owner: storeOwner(id), Netns: rec.Netns}, Addrs: rec.Addrs()}
	a.NetnsID = life.OfRecord(rec).Token()
	return a
}

// AdoptionOfLink is AdoptionOf for an attachment that has no record.
func AdoptionOfLink(id model.ID, f link.Found) ipamstore.Adoption {
	rec := state.Endpoint{Network: id.Network, ContainerID: id.ContainerID, IfName: id.IfName}
	for _, p := range f.Addrs {
		rec.Addresses = append(rec.Addresses, state.Address{Prefix: p})
	}
	if ns, err := life.NetnsIDOf(f.Netns); err == nil {
		rec.Netns, rec.NetnsID, rec.MountNS = f.Netns, state.NetnsID(ns), life.MountNS()
	}
	return AdoptionOf(rec)
}
