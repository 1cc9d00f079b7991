package libnet

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/driver"
	"github.com/libnet-cni/libnet/internal/driver/cniplugin"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/nodefile"
	"github.com/libnet-cni/libnet/internal/wireguard"
	"github.com/libnet-cni/libnet/pkg/ipamstore/subnets"
)

// NetworkOption refines NewNetwork. The order of options does not matter.
type NetworkOption func(*networkSpec)

type networkSpec struct {
	subnets     []netip.Prefix
	auto        []string
	mode        GatewayMode
	internal    bool
	icc         *bool // nil: as the driver has it
	hairpin     *bool
	masquerade  *bool
	labels      map[string]string
	options     map[string]any
	ipam        string // empty: the driver's own
	ipamOptions map[string]any
	scope       Scope
	nodes       []Node
}

// GatewayMode says which packets from outside of a network reach its containers. Those
// of the host itself always do, but under GatewayIsolated.
type GatewayMode = model.GatewayMode

// The gateway modes.
const (
	GatewayOpen           = model.GatewayOpen           // the default: every host that has a route
	GatewayNAT            = model.GatewayNAT            // published ports, by the host's addresses
	GatewayNATUnprotected = model.GatewayNATUnprotected // GatewayNAT, and every host that has a route
	GatewayRouted         = model.GatewayRouted         // published ports, by the container's address
	GatewayIsolated       = model.GatewayIsolated       // no address on the bridge
)

// Node is a host of an overlay network.
type Node struct {
	Address netip.Addr     // where the other hosts reach it
	Subnets []netip.Prefix // of its containers; nil: its blocks of the network's
	// PublicKey is the host's, of the driver option "encryption"; zero: none.
	PublicKey PublicKey
}

// PublicKey is a public key of WireGuard. UnmarshalText reads it as lnctl overlay keygen
// prints it. The zero value is none.
type PublicKey = wireguard.Key

// WithSubnet gives each endpoint an address of this subnet; with several subnets, as
// one of IPv4 and one of IPv6, one of each. The gateway has the first address.
func WithSubnet(subnet netip.Prefix) NetworkOption {
	return func(s *networkSpec) { s.subnets = append(s.subnets, subnet) }
}

// WithAutoSubnet gives the network a subnet that overlaps no other network and no
// route of this host. want is "auto" for IPv4 or "auto6" for IPv6, each with a
// length if need be, as "auto/24".
func WithAutoSubnet(want string) NetworkOption {
	return func(s *networkSpec) { s.auto = append(s.auto, want) }
}

// WithGatewayMode sets the gateway mode of both address families.
func WithGatewayMode(m GatewayMode) NetworkOption { return func(s *networkSpec) { s.mode = m } }

// WithInternal keeps the network without a way to other networks.
func WithInternal() NetworkOption { return func(s *networkSpec) { s.internal = true } }

// WithICC says whether containers of the network reach each other; default true.
func WithICC(on bool) NetworkOption { return func(s *networkSpec) { s.icc = &on } }

// WithHairpin says whether containers of the network, and 127.0.0.0/8 of the host,
// reach the network's published ports; default true.
func WithHairpin(on bool) NetworkOption { return func(s *networkSpec) { s.hairpin = &on } }

// WithMasquerade says whether packets to other networks get the host's address;
// default: as the gateway mode implies, which is true for GatewayNAT and
// GatewayNATUnprotected.
func WithMasquerade(on bool) NetworkOption { return func(s *networkSpec) { s.masquerade = &on } }

// WithLabels keeps labels with the network.
func WithLabels(labels map[string]string) NetworkOption {
	return func(s *networkSpec) {
		if s.labels == nil {
			s.labels = map[string]string{}
		}
		maps.Copy(s.labels, labels)
	}
}

// WithDriverOptions sets options of the driver, by their keys in a CNI
// configuration, as "mtu" or, for the plugin macvlan, "master".
func WithDriverOptions(options map[string]any) NetworkOption {
	return func(s *networkSpec) {
		if s.options == nil {
			s.options = map[string]any{}
		}
		maps.Copy(s.options, options)
	}
}

// WithIPAM has another driver give addresses; see IPAMDrivers. options are those of
// the CNI plugin, by the keys that its section "ipam" has; nil: none.
func WithIPAM(driver string, options map[string]any) NetworkOption {
	return func(s *networkSpec) { s.ipam, s.ipamOptions = driver, options }
}

// WithScope asks for a scope. One that the driver cannot have is a *ConfigError.
func WithScope(scope Scope) NetworkOption { return func(s *networkSpec) { s.scope = scope } }

// WithNodes names the hosts of an overlay network, this one among them. A node
// without subnets gets its block of the network's by its place in the list.
func WithNodes(nodes ...Node) NetworkOption {
	return func(s *networkSpec) { s.nodes = append(s.nodes, nodes...) }
}

// forEngine are the options for a network that the engine makes.
func (s networkSpec) forEngine(ctx context.Context, c *Controller, k kind, name string) ([]engine.NetworkOption, error) {
	cfg := model.NetworkConfig{
		Gateway: s.mode != GatewayIsolated, DefaultGateway: s.mode != GatewayIsolated && !s.internal,
		GatewayModeIPv4: s.mode, GatewayModeIPv6: s.mode, Internal: s.internal,
		NoICC: s.icc != nil && !*s.icc, NoHairpin: s.hairpin != nil && !*s.hairpin,
	}
	if s.masquerade != nil {
		cfg.Masquerade, cfg.NoMasquerade = *s.masquerade, !*s.masquerade
	}
	if err := k.configure(&cfg, s.options); err != nil {
		return nil, err
	}
	opts := []engine.NetworkOption{engine.WithLabels(s.labels), engine.WithDriverOptions(s.options)}
	if s.byPlugin() {
		more, err := s.ipamForEngine(ctx, c, k, name)
		return append(opts, append(more, engine.WithConfig(cfg))...), err
	}
	if err := s.checkPool(k.name); err != nil {
		return nil, err
	}
	given := s.subnets
	if k.capability.Scope == ScopeGlobal {
		if err := s.spread(c, &cfg.Tunnel); err != nil {
			return nil, err
		}
		if len(s.auto) > 0 {
			return nil, model.BadConfig("subnet", s.auto[0], "want a subnet that is the same on every host, as WithSubnet gives it")
		}
		given = nil // the engine takes the blocks of this host
	} else if len(s.nodes) > 0 {
		return nil, model.BadConfig("nodes", len(s.nodes), `needs the driver "overlay"`)
	}
	opts = append(opts, engine.WithConfig(cfg))
	for _, p := range given {
		opts = append(opts, engine.WithSubnet(p))
	}
	for _, a := range s.auto {
		want, err := subnets.ParseRequest(a)
		if err != nil {
			return nil, err
		}
		opts = append(opts, engine.WithAutoSubnet(want))
	}
	return opts, nil
}

// byPlugin says that a CNI plugin gives the addresses.
func (s networkSpec) byPlugin() bool {
	return s.ipam != "" && s.ipam != address.PoolType && s.ipam != ipamNull
}

// ipamForEngine has a CNI plugin give the addresses of a bridge.
func (s networkSpec) ipamForEngine(ctx context.Context, c *Controller, k kind, name string) ([]engine.NetworkOption, error) {
	if k.capability.Scope == ScopeGlobal {
		return nil, model.BadConfig("ipam.type", s.ipam, fmt.Sprintf("want %q with the driver %s: addresses are of this host's block", address.PoolType, k.name))
	}
	section, err := s.pluginIPAM(c)
	if err != nil {
		return nil, err
	}
	ipam, err := c.newPluginIPAM(ctx, name, s.ipam, section)
	if err != nil {
		return nil, err
	}
	return []engine.NetworkOption{engine.WithIPAM(ipam), engine.WithIPAMConf(ipam.conf)}, nil
}

// checkPool refuses what the engine's own address pool is not told this way.
func (s networkSpec) checkPool(driver string) error {
	switch {
	case s.ipam == ipamNull && s.hasSubnet():
		return model.BadConfig("ipam.type", s.ipam, "gives no addresses, and the network has a subnet: remove one of them")
	case s.ipam == address.PoolType && !s.hasSubnet() && len(s.nodes) == 0:
		return model.BadConfig("ipam.type", s.ipam, "needs a subnet")
	case len(s.ipamOptions) > 0:
		return model.BadConfig("ipam", s.ipamOptions, "want no options with the driver "+driver)
	}
	return nil
}

// spread gives the nodes their blocks of the subnets.
func (s networkSpec) spread(c *Controller, t *model.TunnelConfig) (err error) {
	if len(s.nodes) == 0 {
		return model.BadConfig("nodes", "missing", "want the addresses of the network's hosts")
	}
	var nodes []model.Node
	for _, n := range s.nodes {
		nodes = append(nodes, model.Node{Address: n.Address, Subnets: n.Subnets, PublicKey: n.PublicKey})
	}
	if t.Nodes, err = model.AssignBlocks(nodes, s.subnets, model.DefaultBlockSize()); err != nil {
		return err
	}
	t.Subnets = s.subnets
	return c.e.Do(func() error {
		t.Self, err = nodefile.Own(t.Nodes)
		return err
	})
}

// forOther is a network that the engine does not make.
func (s networkSpec) forOther(c *Controller, k kind, name string) (driver.Network, error) {
	n := driver.Network{Name: name, Driver: k.name, Scope: s.scope, Labels: s.labels, Options: s.options}
	unknown := []struct {
		key string
		set bool
	}{
		{"gatewayMode", s.mode != GatewayOpen}, {"icc", s.icc != nil}, {"hairpin", s.hairpin != nil},
		{"ipMasq", s.masquerade != nil}, {"nodes", len(s.nodes) > 0}, {"internal", s.internal && k.capability.Single},
	}
	for _, u := range unknown {
		if u.set {
			return n, model.BadConfig(u.key, "set", "is no option of the driver "+k.name+": see WithDriverOptions for those that a plugin has")
		}
	}
	var err error
	n.IPAM, err = s.pluginIPAM(c)
	return n, err
}

func (s networkSpec) hasSubnet() bool { return len(s.subnets) > 0 || len(s.auto) > 0 }

// pluginIPAM is the section "ipam" of a plugin's configuration; nil: it has none.
func (s networkSpec) pluginIPAM(c *Controller) (map[string]any, error) {
	kind := s.ipam
	if kind == "" && s.hasSubnet() {
		kind = address.PoolType
	}
	if kind == "" || kind == ipamNull {
		if s.hasSubnet() || len(s.ipamOptions) > 0 {
			return nil, model.BadConfig("ipam.type", kind, "gives no addresses, and has a subnet or options: remove one of them")
		}
		return nil, nil
	}
	if cniplugin.Find(c.path, kind) == nil {
		return nil, fmt.Errorf("%w of addresses %q: there are %s", ErrUnknownDriver, kind, names(c.IPAMDrivers()))
	}
	ipam := maps.Clone(s.ipamOptions)
	if ipam == nil {
		ipam = map[string]any{}
	}
	ipam["type"] = kind
	if _, has := ipam["ranges"]; has && s.hasSubnet() {
		return nil, model.BadConfig("ipam.ranges", ipam["ranges"], "cannot be together with WithSubnet; remove one of them")
	}
	var ranges [][]map[string]string
	for _, p := range s.subnets {
		ranges = append(ranges, []map[string]string{{"subnet": p.String()}})
	}
	for _, a := range s.auto { // "auto" is a word of ipam-ln; another plugin refuses it
		ranges = append(ranges, []map[string]string{{"subnet": a}})
	}
	if ranges != nil {
		ipam["ranges"] = ranges
	}
	if routes := s.defaultRoutes(); ipam["routes"] == nil && routes != nil {
		ipam["routes"] = routes
	}
	if c.dataDir != "" && ipam["dataDir"] == nil && slices.Contains([]string{address.PoolType, "host-local"}, kind) {
		ipam["dataDir"] = c.dataDir
	}
	return ipam, nil
}

// defaultRoutes are those by the gateways of the subnets.
func (s networkSpec) defaultRoutes() (all []map[string]string) {
	if s.internal {
		return nil
	}
	for _, any := range []string{"0.0.0.0/0", "::/0"} {
		is6 := any == "::/0"
		if slices.ContainsFunc(s.subnets, func(p netip.Prefix) bool { return p.Addr().Is6() == is6 }) ||
			slices.ContainsFunc(s.auto, func(a string) bool { return strings.HasPrefix(a, "auto6") == is6 }) {
			all = append(all, map[string]string{"dst": any})
		}
	}
	return all
}
