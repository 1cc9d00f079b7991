package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// unknownConfig is the fingerprint of a record that was rebuilt: rules that
// such a configuration does not know of are nevertheless wanted.
const unknownConfig = ""

// untoldConfig is the fingerprint of a rebuilt record of a network of which nothing
// told whether it was closed: Rebuild asks again.
const untoldConfig = "untold"

// network returns the network of an attachment, with a record written for it if
// it has none.
func (r *rebuilder) network(ctx context.Context, id model.ID, f link.Found) (*engine.Network, error) {
	n, err := r.o.Network(id.Network)
	if err == nil || !errors.Is(err, model.ErrNotFound) && !errors.Is(err, state.ErrCorrupt) {
		return n, err
	}
	config, untold := r.config(ctx, id, f)
	fingerprint := unknownConfig
	if untold != nil {
		fingerprint = untoldConfig
		r.untold = append(r.untold, fmt.Errorf("network %q: %w", id.Network, untold))
	}
	saved := engine.SavedConfig{NetworkConfig: config}
	if len(f.Addrs) > 0 {
		pool := address.SavedPool{DataDir: r.o.DataDir, Sets: subnetSets(f)}
		if _, err := pool.Open(id.Network); err != nil {
			return nil, err
		}
		saved.Pool = &pool
	}
	data, err := json.Marshal(saved)
	if err != nil {
		return nil, err
	}
	rec := state.Network{Name: id.Network, Driver: plan.DriverBridge, Bridge: f.Bridge, Fingerprint: fingerprint, Config: data, Rebuilt: true}
	if err := r.o.networks.CreateNetwork(rec); err != nil && !errors.Is(err, state.ErrExists) {
		return nil, err
	}
	return r.o.Network(id.Network)
}

// retell asks again for the configurations of networks of which nothing told.
func (r *rebuilder) retell() error {
	recs, err := r.o.networks.Networks()
	errs := []error{err}
	for _, rec := range recs {
		if rec.Fingerprint != untoldConfig {
			continue
		}
		config, ok, err := r.o.configured(rec.Name)
		if err != nil || !ok || config.Bridge != rec.Bridge {
			r.untold = append(r.untold, fmt.Errorf("network %q: %w", rec.Name, errors.Join(errUntold, err)))
			continue
		}
		errs = append(errs, r.o.complete(rec.Name, config))
	}
	return errors.Join(errs...)
}

// complete writes the configuration of a network of which nothing told, unless an
// ADD did that meanwhile. An ADD that comes later writes its own, if that differs.
func (o *Operator) complete(network string, config model.NetworkConfig) error {
	old, err := o.networks.LoadNetwork(network)
	if state.Missing(err) || err == nil && old.Fingerprint != untoldConfig {
		return nil
	}
	if err != nil {
		return err
	}
	rec := old
	rec.Rebuilt = true
	var saved engine.SavedConfig
	if err := json.Unmarshal(rec.Config, &saved); err != nil {
		return err
	}
	saved.NetworkConfig, rec.Fingerprint = config, unknownConfig
	if rec.Config, err = json.Marshal(saved); err != nil {
		return err
	}
	_, err = o.networks.SwapNetwork(old, rec)
	return err
}

// subnetSets are the subnets of the bridge that the container has addresses of.
func subnetSets(f link.Found) []ipamstore.RangeSet {
	var sets []ipamstore.RangeSet
	var known []netip.Prefix
	for _, b := range f.BridgeAddrs {
		subnet := b.Masked()
		used := slices.ContainsFunc(f.Addrs, func(p netip.Prefix) bool { return p.Masked() == subnet })
		if used && !slices.ContainsFunc(known, subnet.Overlaps) {
			known = append(known, subnet)
			sets = append(sets, ipamstore.RangeSet{{Subnet: subnet, Gateway: b.Addr()}})
		}
	}
	for _, b := range f.BridgeAddrs { // a link-local gateway is outside the subnet
		for _, p := range f.Addrs {
			subnet := p.Masked()
			if b.Addr().Is6() && b.Addr().IsLinkLocalUnicast() && p.Addr().Is6() && !slices.ContainsFunc(known, subnet.Overlaps) {
				known = append(known, subnet)
				sets = append(sets, ipamstore.RangeSet{{Subnet: subnet, Gateway: b.Addr()}})
			}
		}
	}
	return sets
}

// errUntold says that a network may have been closed, and is not now.
var errUntold = errors.New("no rules are left, and no configuration names it: whether it was closed cannot be told. " +
	"It is open; start a container of it, or name the directory of its configuration (--conf-dir)")

// config is the network's configuration: as much of it as its rules, its bridge
// and its attachments show, or, without rules, as WithConfigurations tells.
func (r *rebuilder) config(ctx context.Context, id model.ID, f link.Found) (model.NetworkConfig, error) {
	if r.ruled(ctx, id.Network) {
		return r.shown(ctx, id, f), nil
	}
	c, ok, err := r.o.configured(id.Network)
	switch {
	case err != nil:
		return r.shown(ctx, id, f), fmt.Errorf("%w: %w", errUntold, err)
	case ok && c.Bridge == f.Bridge:
		return c, nil
	case len(f.Addrs) == 0:
		return r.shown(ctx, id, f), nil
	}
	return r.shown(ctx, id, f), errUntold
}

// configured returns the network's configuration, if WithConfigurations knows it.
func (o *Operator) configured(network string) (model.NetworkConfig, bool, error) {
	if o.Configurations == nil {
		return model.NetworkConfig{}, false, nil
	}
	cfg, ok, err := o.Configurations(network)
	if cfg.Bridge == "" {
		cfg.Bridge = model.BridgeName(network)
	}
	return cfg, ok, err
}

// ruled says that rules tell of the network or of one of its attachments.
func (r *rebuilder) ruled(ctx context.Context, network string) bool {
	for id, o := range r.owned {
		if id.Network != network {
			continue
		}
		if f, err := r.o.kernel.Find(ctx, o, r.ns); err == nil {
			if _, ok := r.rules.Networks[firewall.Key(plan.GuardOwner(f.Bridge))]; ok {
				return true
			}
		}
	}
	for id := range r.owned {
		if _, ok := r.rules.Endpoints[firewall.Key(id.String())]; ok && id.Network == network {
			return true
		}
	}
	return false
}

// hairpin says whether the network's ports have the flag by its configuration:
// one whose container has published ports has it anyway.
func (r *rebuilder) hairpin(ctx context.Context, network string) bool {
	for id, o := range r.owned {
		if id.Network != network || len(r.rules.Endpoints[firewall.Key(id.String())].Ports) > 0 {
			continue
		}
		if f, err := r.o.kernel.Find(ctx, o, r.ns); err == nil {
			return f.Hairpin
		}
	}
	return false
}

func (r *rebuilder) shown(ctx context.Context, id model.ID, f link.Found) model.NetworkConfig {
	fw := r.rules.Networks[firewall.Key(plan.GuardOwner(f.Bridge))]
	e := r.rules.Endpoints[firewall.Key(id.String())]
	c := model.NetworkConfig{
		Bridge: f.Bridge, Promiscuous: f.Promisc, Gateway: len(f.BridgeAddrs) > 0,
		Hairpin: r.hairpin(ctx, id.Network), Isolated: f.Isolated && !fw.NoICC,
		Internal: fw.Internal, NoICC: fw.NoICC, SpoofCheck: e.MAC != nil,
		GatewayModeIPv4: modeOf(fw.IPv4), GatewayModeIPv6: modeOf(fw.IPv6), TrustedInterfaces: fw.Trusted,
	}
	for other := range r.owned {
		if o := r.rules.Endpoints[firewall.Key(other.String())]; other.Network == id.Network && len(o.Ports) > 0 {
			c.NoHairpin, c.MasqueradeAll = !o.Hairpin, o.MasqueradeAll // the same for all
		}
	}
	if fw.NoHost && len(f.BridgeAddrs) == 0 {
		c.Internal, c.GatewayModeIPv4, c.GatewayModeIPv6 = false, model.GatewayIsolated, model.GatewayIsolated
	}
	if fw.Apart {
		c.IngressPolicy = model.IngressSameBridge
	}
	if fw.AcceptMark != nil {
		c.AcceptFwMark = model.FwMark(*fw.AcceptMark)
	}
	for _, p := range f.Addrs {
		is6 := p.Addr().Is6()
		does := is6 && e.Masquerade.IPv6 || !is6 && e.Masquerade.IPv4
		implied := c.Mode(is6).Translates()
		c.Masquerade = c.Masquerade || does && !implied
		c.NoMasquerade = c.NoMasquerade || !does && implied
	}
	for _, a := range e.Source {
		if a.Is6() {
			c.SNATIPv6 = a
		} else {
			c.SNATIPv4 = a
		}
	}
	return c
}

// modeOf is the mode that a policy shows of.
func modeOf(p firewall.Policy) model.GatewayMode {
	switch p {
	case firewall.Published:
		return model.GatewayNAT
	case firewall.Routed:
		return model.GatewayRouted
	}
	return model.GatewayOpen
}

// networkRecords writes the records of networks that have attachments with
// records and none themselves.
func (r *rebuilder) networkRecords(ctx context.Context) error {
	networks, err := r.o.dir.EndpointNetworks()
	errs := []error{err}
	for _, name := range networks {
		if _, err := r.o.networks.LoadNetwork(name); !state.Missing(err) {
			continue
		}
		recs, err := r.o.dir.Endpoints(name)
		errs = append(errs, err)
		for _, rec := range recs {
			id := life.IDOf(rec)
			o, linked := r.owned[id]
			if rec.Phase != state.PhaseReady || !linked || r.o.dead(rec) {
				continue
			}
			found, err := r.o.kernel.Find(ctx, o, r.ns)
			if err == nil {
				_, err = r.network(ctx, id, found)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("rebuild network %q: %w", name, err))
				continue
			}
			r.done = append(r.done, id)
			break
		}
	}
	return errors.Join(errs...)
}
