package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/sentinel"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/internal/unwind"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
	"github.com/libnet-cni/libnet/pkg/ipamstore/subnets"
)

// claimSubnets refuses subnets that the network's bridge cannot lead to, because
// something else of the host does: another network of ours, an interface, a
// route. A network of ours that has no attachment gives way, unless NewNetwork
// made it. It is for the first attachment of a network, or of a changed one, and
// keeps other calls that are at this point waiting until release is called: by then
// the bridge has its addresses.
// A network without a gateway leads nowhere, and may overlap.
func (n *Network) claimSubnets(ctx context.Context, a model.Addressing) (release func(), err error) {
	subnets := n.routed(a)
	if n.c.occupants == nil || len(subnets) == 0 || n.def.Config.Tunnel.Used() {
		return func() {}, nil
	}
	release, err = n.c.oneAtATime(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range subnets {
		err := n.clashOfRecords(s)
		if err == nil {
			err = n.claimSubnet(ctx, s)
		}
		if err != nil {
			release()
			return nil, err
		}
	}
	return release, nil
}

// routed returns the subnets that the host will lead to by the bridge: those of an
// endpoint's addresses, and all of the pool.
func (n *Network) routed(a model.Addressing) []netip.Prefix {
	if !n.def.Config.HasGateway() {
		return nil
	}
	all := slices.DeleteFunc(n.Subnets(), func(s netip.Prefix) bool { return !model.FirstOf(s).IsValid() })
	for _, addr := range a.Addresses {
		if s := addr.Prefix.Masked(); addr.Gateway.IsValid() && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return slices.DeleteFunc(all, func(s netip.Prefix) bool { return s.Addr().IsLinkLocalUnicast() })
}

func (n *Network) claimSubnet(ctx context.Context, subnet netip.Prefix) error {
	for asked := map[string]bool{}; ; {
		way, clashes, err := n.clashOnHost(subnet, asked)
		if err != nil {
			return err
		}
		if clashes != nil {
			return clash(subnet, model.NetworkOf(clashes.Alias), clashes.String())
		}
		if way == nil {
			return nil
		}
		asked[way.Device] = true
		if err := n.giveWay(ctx, model.NetworkOf(way.Alias), *way); err != nil {
			return err
		}
	}
}

// clashOnHost returns what of the host clashes with a subnet of the network, and a bridge of
// ours that may give way, which is not in asked; nil: nothing.
func (n *Network) clashOnHost(subnet netip.Prefix, asked map[string]bool) (way, clashes *host.Occupant, err error) {
	found, err := n.c.occupants(n.def.Config.Bridge, model.OwnerPrefix, subnet)
	for i := range found {
		o := &found[i]
		switch name := model.NetworkOf(o.Alias); {
		case name != "" && !asked[o.Device]:
			way = o
		case name == n.def.Name: // on the bridge that it had before, which is in use
		case o.Route.Bits() > subnet.Bits() && !n.gives(o.Route): // as of another host's part
		case clashes == nil:
			clashes = o
		}
	}
	return way, clashes, err
}

// subnetStatus says why claimSubnets would refuse every attachment, and changes nothing:
// of a bridge of ours that may give way it says nothing. A network that is recorded as
// it is has its subnets, so that it costs no more where there are containers.
func (n *Network) subnetStatus() error {
	subnets := n.routed(model.Addressing{})
	if n.c.occupants == nil || n.auto != nil || len(subnets) == 0 || n.def.Config.Tunnel.Used() || n.c.networks.HasNetwork(n.def.Name, n.fingerprint()) {
		return nil
	}
	for _, s := range subnets {
		err := n.clashOfRecords(s)
		if err == nil {
			var clashes *host.Occupant
			if _, clashes, err = n.clashOnHost(s, nil); clashes != nil {
				err = clash(s, "", clashes.String())
			}
		}
		if err != nil {
			return errors.New(err.Error()) // what the configuration says is right elsewhere
		}
	}
	return nil
}

// clash is the error for a subnet that something else has.
func clash(subnet netip.Prefix, network, what string) error {
	if network != "" {
		what += fmt.Sprintf(", of network %q", network)
	}
	return model.BadConfig("subnet", subnet, "is in use on this host by "+what+": want another subnet, or \"auto\"")
}

// clashOfRecords finds networks that no link tells of: the parts of an overlay
// that are on other hosts, and bridges that are gone from under their containers.
func (n *Network) clashOfRecords(subnet netip.Prefix) error {
	recs, err := n.c.networks.Networks()
	if err != nil && !errors.Is(err, state.ErrCorrupt) { // set aside; the routes tell
		return err
	}
	for _, rec := range recs {
		if rec.Name == n.def.Name || rec.Bridge == n.def.Config.Bridge {
			continue
		}
		other, err := n.c.networkOf(rec)
		if err != nil || !other.def.Config.HasGateway() && !other.def.Config.Tunnel.Used() {
			continue // one that cannot be read has its links
		}
		theirs := append(other.Subnets(), other.def.Config.Tunnel.Reach()...)
		i := slices.IndexFunc(theirs, subnet.Overlaps)
		if i < 0 {
			continue
		}
		has, err := n.c.endpoints.HasEndpoint(rec.Name, state.Endpoint{})
		if err != nil {
			return err
		}
		if has || other.kept {
			return clash(subnet, rec.Name, theirs[i].String()+", which "+rec.Bridge+" leads to")
		}
	}
	return nil
}

// giveWay removes a bridge of ours that has no port, and with it its network, if
// that has no attachment: both stay otherwise. It may be one that the network
// itself had before.
func (n *Network) giveWay(ctx context.Context, name string, o host.Occupant) error {
	remove := func() error {
		err := n.c.bridges.RemoveBridge(ctx, o.Device, o.Alias)
		if errors.Is(err, link.ErrInUse) || errors.Is(err, link.ErrNotBridge) {
			return errStays
		}
		return err
	}
	if name == n.def.Name {
		return unlessStays(remove())
	}
	return unlessStays(n.c.endpoints.Alone(ctx, name, func() error {
		other, err := n.c.Network(name)
		if err == nil && other.kept {
			return nil
		}
		if err := remove(); err != nil {
			return err
		}
		if err != nil || other.def.Driver != plan.DriverBridge || other.def.Config.Bridge != o.Device {
			return nil // its bridge alone was in the way
		}
		return other.dissolveAlone(ctx)
	}))
}

var errStays error = &sentinel.Error{Text: "the bridge has ports"}

func unlessStays(err error) error {
	if errors.Is(err, errStays) || errors.Is(err, state.ErrInUse) {
		return nil
	}
	return err
}

// gives says whether the network's containers may have an address of a part of a
// subnet.
func (n *Network) gives(part netip.Prefix) bool {
	pool, ok := n.ipam.(*address.Pool)
	return !ok || pool.Gives(part)
}

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
	return (&subnets.Book{DataDir: n.c.dataDir}).Remove(ctx, n.def.Name)
}
