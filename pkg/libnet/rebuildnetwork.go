package libnet

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/kernel"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// unknownConfig is the fingerprint of a record that was rebuilt: rules that
// such a configuration does not know of are nevertheless wanted.
const unknownConfig = ""

// network returns the network of an attachment, with a record written for it if
// it has none.
func (r *rebuilder) network(id ID, f kernel.Found) (*Network, error) {
	n, err := r.c.Network(id.Network)
	if err == nil || !errors.Is(err, ErrNotFound) && !errors.Is(err, state.ErrCorrupt) {
		return n, err
	}
	saved := savedConfig{NetworkConfig: r.config(id, f)}
	if len(f.Addrs) > 0 {
		pool := savedPool{DataDir: r.c.dataDir, Sets: subnetSets(f)}
		if _, err := NewPool(pool.config(id.Network), Addressing{}); err != nil {
			return nil, err
		}
		saved.Pool = &pool
	}
	data, err := json.Marshal(saved)
	if err != nil {
		return nil, err
	}
	rec := state.Network{Name: id.Network, Driver: driverBridge, Bridge: f.Bridge, Fingerprint: unknownConfig, Config: data}
	if err := r.c.networks.CreateNetwork(rec); err != nil && !errors.Is(err, state.ErrExists) {
		return nil, err
	}
	return r.c.Network(id.Network)
}

// subnetSets are the subnets of the bridge that the container has addresses of.
func subnetSets(f kernel.Found) []ipamstore.RangeSet {
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

// config is as much of a network's configuration as its rules, its bridge and
// its attachments show.
func (r *rebuilder) config(id ID, f kernel.Found) NetworkConfig {
	fw := r.rules.Networks[firewall.Key(guardOwner(f.Bridge))]
	e := r.rules.Endpoints[firewall.Key(id.String())]
	c := NetworkConfig{
		Bridge: f.Bridge, Promiscuous: f.Promisc, Gateway: len(f.BridgeAddrs) > 0,
		Hairpin: f.Hairpin && len(e.Ports) == 0, Isolated: f.Isolated && !fw.NoICC,
		Internal: fw.Internal, NoICC: fw.NoICC, SpoofCheck: e.MAC != nil,
		GatewayModeIPv4: modeOf(fw.IPv4), GatewayModeIPv6: modeOf(fw.IPv6), TrustedInterfaces: fw.Trusted,
	}
	for other := range r.owned {
		if o := r.rules.Endpoints[firewall.Key(other.String())]; other.Network == id.Network && len(o.Ports) > 0 {
			c.NoHairpin, c.MasqueradeAll = !o.Hairpin, o.MasqueradeAll // the same for all
		}
	}
	if fw.Apart {
		c.IngressPolicy = IngressSameBridge
	}
	if fw.AcceptMark != nil {
		c.AcceptFwMark = FwMark(*fw.AcceptMark)
	}
	for _, p := range f.Addrs {
		is6 := p.Addr().Is6()
		does := is6 && e.Masquerade.IPv6 || !is6 && e.Masquerade.IPv4
		implied := c.mode(is6).translates()
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
func modeOf(p firewall.Policy) GatewayMode {
	switch p {
	case firewall.Published:
		return GatewayNAT
	case firewall.Routed:
		return GatewayRouted
	}
	return GatewayOpen
}
