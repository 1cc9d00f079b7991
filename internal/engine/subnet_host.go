package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"

	"github.com/libnet-cni/libnet/internal/kernel"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plain"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
	"github.com/libnet-cni/libnet/pkg/ipamstore/subnets"
)

// WithAutoSubnet gives each endpoint an address of a subnet that is chosen for
// the network: by NewNetwork, or by the first Attach or CreateEndpoint of a
// network that DefineNetwork described. The network keeps it until it is
// deleted or dissolved; what is wanted afterwards changes nothing. One for each
// address family. See AutoPool.
func WithAutoSubnet(want subnets.Request) NetworkOption {
	return func(s *networkSpec) {
		if s.wants == nil {
			s.wants = map[int]subnets.Request{}
		}
		s.wants[len(s.subnets)] = want
		s.subnets = append(s.subnets, ipamstore.RangeSet{{}})
	}
}

// WithAddressPools has subnets chosen out of the address pools listed in a
// file instead of subnets.DefaultPoolsFile.
func WithAddressPools(file string) Option { return func(o *options) { o.poolsFile = file } }

// setIPAM makes the pool that WithSubnet and WithAutoSubnet describe. Of an
// AutoPool the network has the part that takes addresses back, until
// chooseSubnets is called.
func (n *Network) setIPAM(spec networkSpec) (err error) {
	cfg := ipamstore.Config{Network: n.name, DataDir: n.c.dataDir, Sets: spec.subnets}
	switch {
	case spec.ipam != nil || len(spec.subnets) == 0:
		n.ipam = spec.ipam
	case len(spec.wants) == 0:
		n.ipam, err = NewPool(cfg, model.Addressing{})
	default:
		n.ipam, err = NewAutoPool(cfg, spec.wants, model.Addressing{})
	}
	auto, ok := n.ipam.(*AutoPool)
	if err != nil || !ok {
		return err
	}
	own := *auto
	own.host.records, own.book.PoolsFile = n.c.networks, n.c.poolsFile
	if n.c.routes != nil {
		own.host.routes = n.c.routes
	}
	n.auto, n.ipam = &own, own.closed
	return nil
}

// chooseSubnets gives the network the subnets that it has or, if it has none
// yet, those that are chosen now. They are not given back when what follows
// fails: another process may have built on them meanwhile.
func (n *Network) chooseSubnets(ctx context.Context) error {
	if n.auto == nil {
		return nil
	}
	pool, err := n.auto.resolve(ctx)
	if err != nil {
		return err
	}
	n.ipam = pool
	return nil
}

// chooseFirstSubnets is chooseSubnets for a network that must not exist yet,
// and so can give back what was chosen.
func (n *Network) chooseFirstSubnets(ctx context.Context, undo *undoStack) error {
	if n.auto == nil {
		return nil
	}
	if _, err := n.c.networks.LoadNetwork(n.name); err == nil {
		return fmt.Errorf("%w: %q", model.ErrNetworkExists, n.name)
	}
	undo.push(func() error { return n.releaseSubnets(context.WithoutCancel(ctx)) })
	return n.chooseSubnets(ctx)
}

// releaseSubnets gives back what was chosen for the network, if anything was.
func (n *Network) releaseSubnets(ctx context.Context) error {
	if pool, ok := n.ipam.(*Pool); ok {
		return pool.ReleaseSubnets(ctx)
	}
	return (&subnets.Book{DataDir: n.c.dataDir}).Remove(ctx, n.name)
}

// ReleaseSubnets gives back the subnets that were chosen for the pool's
// network; none is success. It is for a caller that uses a pool without a Network,
// when that network is no more: a Network does it when it is deleted or
// dissolved.
func (p *Pool) ReleaseSubnets(ctx context.Context) error {
	return (&subnets.Book{DataDir: p.cfg.DataDir}).Remove(ctx, p.network)
}

// surroundings is what a chosen subnet must keep clear of, beside what the book
// knows.
type surroundings struct {
	network string // whose subnet it is
	records networkRecords
	routes  func() ([]netip.Prefix, error)
}

// ownRoutes lists the routes of the calling thread's network namespace.
func ownRoutes() ([]netip.Prefix, error) {
	h, err := kernel.Open()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return h.Prefixes()
}

// inUse returns what is in use on the host, and apart from that what the
// network's own record says it has.
func (s surroundings) inUse() (all, own []netip.Prefix, err error) {
	all, err = s.routes()
	if err != nil {
		return nil, nil, err
	}
	// systemd-resolved names itself in the first and whom it asks in the second.
	for _, file := range []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"} {
		servers, err := nameservers(file)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, servers...)
	}
	recs, err := s.records.Networks()
	if err != nil && !errors.Is(err, state.ErrCorrupt) { // set aside; the routes tell
		return nil, nil, err
	}
	for _, rec := range recs {
		subnets, err := subnetsOf(rec)
		if err != nil {
			return nil, nil, err
		}
		if rec.Name == s.network {
			own = append(own, subnets...)
		} else {
			all = append(all, subnets...)
		}
	}
	return all, own, nil
}

// subnetsOf returns the subnets of a network whose addresses are ours.
func subnetsOf(rec state.Network) ([]netip.Prefix, error) {
	var saved struct{ Pool savedPool }
	if err := json.Unmarshal(rec.Config, &saved); err != nil {
		return nil, fmt.Errorf("record of network %q: %w", rec.Name, err)
	}
	var all []netip.Prefix
	for _, set := range saved.Pool.Sets {
		for _, r := range set {
			all = append(all, r.Subnet)
		}
	}
	return all, nil
}

// nameservers returns those of a resolv.conf(5), each as a prefix of its own; a
// missing file has none.
func nameservers(file string) ([]netip.Prefix, error) {
	data, err := plain.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []netip.Prefix
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			a = a.WithZone("").Unmap()
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return all, err
}
