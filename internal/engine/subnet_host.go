package engine

import (
	"context"
	"fmt"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/unwind"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// WithAutoSubnet gives each endpoint an address of a subnet that is chosen for
// the network: by NewNetwork, or by the first Attach or CreateEndpoint of a
// network that DefineNetwork described. The network keeps it until it is
// deleted or dissolved; what is wanted afterwards changes nothing. One for each
// address family. See AutoPool.
func WithAutoSubnet(want ipamstore.SubnetRequest) NetworkOption {
	return func(s *networkSpec) {
		if s.wants == nil {
			s.wants = map[int]ipamstore.SubnetRequest{}
		}
		s.wants[len(s.subnets)] = want
		s.subnets = append(s.subnets, ipamstore.RangeSet{{}})
	}
}

// WithAddressPools has subnets chosen out of the address pools listed in a
// file instead of ipamstore.DefaultPoolsFile.
func WithAddressPools(file string) Option { return func(o *options) { o.poolsFile = file } }

// setIPAM makes the pool that WithSubnet and WithAutoSubnet describe. Of an
// AutoPool the network has the part that takes addresses back, until
// chooseSubnets is called.
func (n *Network) setIPAM(spec networkSpec) (err error) {
	cfg := ipamstore.Config{Network: n.def.Name, DataDir: n.c.dataDir, Sets: spec.subnets}
	switch {
	case spec.ipam != nil || len(spec.subnets) == 0:
		n.ipam = spec.ipam
	case len(spec.wants) == 0:
		n.ipam, err = address.NewPool(cfg, model.Addressing{})
	default:
		n.ipam, err = address.NewAutoPool(cfg, spec.wants, model.Addressing{})
	}
	auto, ok := n.ipam.(*address.AutoPool)
	if err != nil || !ok {
		return err
	}
	n.auto = auto.On(n.c.networks, n.c.routes, n.c.poolsFile)
	n.ipam = n.auto.Closed()
	return nil
}

// chooseSubnets gives the network the subnets that it has or, if it has none
// yet, those that are chosen now. They are not given back when what follows
// fails: another process may have built on them meanwhile.
func (n *Network) chooseSubnets(ctx context.Context) error {
	if n.auto == nil {
		return nil
	}
	pool, err := n.auto.Resolve(ctx)
	if err != nil {
		return err
	}
	n.ipam = pool
	return nil
}

// chooseFirstSubnets is chooseSubnets for a network that must not exist yet,
// and so can give back what was chosen.
func (n *Network) chooseFirstSubnets(ctx context.Context, undo *unwind.Stack) error {
	if n.auto == nil {
		return nil
	}
	if _, err := n.c.networks.LoadNetwork(n.def.Name); err == nil {
		return fmt.Errorf("%w: %q", model.ErrNetworkExists, n.def.Name)
	}
	undo.Push(func() error { return n.releaseSubnets(context.WithoutCancel(ctx)) })
	return n.chooseSubnets(ctx)
}

// releaseSubnets gives back what was chosen for the network, if anything was.
func (n *Network) releaseSubnets(ctx context.Context) error {
	if pool, ok := n.ipam.(*address.Pool); ok {
		return pool.ReleaseSubnets(ctx)
	}
	return (&ipamstore.Subnets{DataDir: n.c.dataDir}).Remove(ctx, n.def.Name)
}
