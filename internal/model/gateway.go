package model

import (
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// GatewayMode says which hosts may reach the containers of a network from outside of
// it, for one address family. The host itself always may.
type GatewayMode string

// The gateway modes, as Docker has them.
const (
	// GatewayOpen is what the reference bridge plugin does: a host with a
	// route to a container reaches it. Ports are published on the host's addresses.
	GatewayOpen GatewayMode = ""
	// GatewayNAT lets in only what comes by a published port of the host.
	GatewayNAT GatewayMode = "nat"
	// GatewayNATUnprotected is GatewayNAT with the containers' own addresses in
	// reach of any host with a route.
	GatewayNATUnprotected GatewayMode = "nat-unprotected"
	// GatewayRouted translates no address: the published ports, and ping, are
	// reached by the container's own address.
	GatewayRouted GatewayMode = "routed"
	// GatewayIsolated has no address on the bridge: not even the host takes part.
	GatewayIsolated GatewayMode = "isolated"
)

// IngressPolicy is that of the reference firewall plugin.
type IngressPolicy string

// The ingress policies.
const (
	// IngressOpen drops nothing.
	IngressOpen IngressPolicy = "open"
	// IngressSameBridge drops what other networks with this policy, or with
	// IngressIsolated, send.
	IngressSameBridge IngressPolicy = "same-bridge"
	// IngressIsolated is IngressSameBridge, and NoICC.
	IngressIsolated IngressPolicy = "isolated"
)

// FwMark is a packet mark under a mask; mask 0 is none.
type FwMark struct{ Value, Mask uint32 }

// String is "0x1/0xff".
func (m FwMark) String() string { return fmt.Sprintf("%#x/%#x", m.Value, m.Mask) }

// Mode returns the gateway mode of a family.
func (c NetworkConfig) Mode(is6 bool) GatewayMode {
	if is6 {
		return c.GatewayModeIPv6
	}
	return c.GatewayModeIPv4
}

func (c NetworkConfig) IsIsolated() bool {
	return c.GatewayModeIPv4 == GatewayIsolated || c.GatewayModeIPv6 == GatewayIsolated
}

// Translates says that a mode implies masquerading.
func (m GatewayMode) Translates() bool { return m == GatewayNAT || m == GatewayNATUnprotected }

// masquerades says whether packets of a family get the host's address.
func (c NetworkConfig) masquerades(is6 bool) bool {
	switch m := c.Mode(is6); {
	case m == GatewayRouted || m == GatewayIsolated || c.NoMasquerade:
		return false
	default:
		return c.Masquerade || m.Translates()
	}
}

func (c NetworkConfig) MasqueradeFamilies() firewall.Families {
	return firewall.Families{IPv4: c.masquerades(false), IPv6: c.masquerades(true)}
}

// Policy is what the firewall calls a mode.
func (m GatewayMode) Policy() firewall.Policy {
	switch m {
	case GatewayNAT:
		return firewall.Published
	case GatewayNATUnprotected:
		return firewall.Unprotected
	case GatewayRouted:
		return firewall.Routed
	}
	return firewall.Open
}

// IsInternal says that nothing is forwarded into or out of the network.
func (c NetworkConfig) IsInternal() bool { return c.Internal || c.IsIsolated() }

func (c NetworkConfig) ForbidsICC() bool { return c.NoICC || c.IngressPolicy == IngressIsolated }

func (c NetworkConfig) IsApart() bool {
	return c.Tunnel.Used() && (c.GatewayModeIPv4 != GatewayNAT || c.GatewayModeIPv6 != GatewayNAT) ||
		c.IngressPolicy == IngressSameBridge || c.IngressPolicy == IngressIsolated
}

// SNATAddrs returns the fixed source addresses.
func (c NetworkConfig) SNATAddrs() []netip.Addr {
	return slices.DeleteFunc([]netip.Addr{c.SNATIPv4, c.SNATIPv6}, func(a netip.Addr) bool { return !a.IsValid() })
}

func (c NetworkConfig) validateGateway() error {
	for key, m := range map[string]GatewayMode{"gatewayMode.ipv4": c.GatewayModeIPv4, "gatewayMode.ipv6": c.GatewayModeIPv6} {
		if !slices.Contains([]GatewayMode{GatewayOpen, GatewayNAT, GatewayNATUnprotected, GatewayRouted, GatewayIsolated}, m) {
			return BadConfig(key, fmt.Sprintf("%q", m), `want "nat", "nat-unprotected", "routed" or "isolated"`)
		}
	}
	if !slices.Contains([]IngressPolicy{"", IngressOpen, IngressSameBridge, IngressIsolated}, c.IngressPolicy) {
		return BadConfig("ingressPolicy", fmt.Sprintf("%q", c.IngressPolicy), `want "open", "same-bridge" or "isolated"`)
	}
	if !slices.Contains([]Backend{"", BackendAuto, BackendNFTables, BackendIPTables}, c.Backend) {
		return BadConfig("backend", fmt.Sprintf("%q", c.Backend), `want "auto", "nftables" or "iptables"`)
	}
	if c.SpoofCheck && c.Backend == BackendIPTables {
		return BadConfig("macspoofchk", true, `needs nf_tables: want backend "nftables" or "auto", or macspoofchk false`)
	}
	if err := ValidatePriority(c.GatewayPriority); err != nil {
		return err
	}
	for _, name := range c.TrustedInterfaces {
		if !ValidIfName(name) {
			return BadConfig("trustedInterfaces", fmt.Sprintf("%q", name), "want interface names of 1 to 15 bytes without '/', ':' and blanks")
		}
	}
	if m := c.AcceptFwMark; m != (FwMark{}) && (m.Value == 0 || m.Value&^m.Mask != 0) {
		return BadConfig("acceptFwMark", m, "want a mark above 0 (every packet without a mark has 0) that its mask leaves as it is")
	}
	return c.validateTranslation()
}

func ValidatePriority(p int) error {
	if p < math.MinInt32 || p > math.MaxInt32 {
		return BadConfig("gwPriority", p, "want a whole number from -2147483648 to 2147483647")
	}
	return nil
}

func (c NetworkConfig) validateTranslation() error {
	if c.IsIsolated() {
		for _, m := range []GatewayMode{c.GatewayModeIPv4, c.GatewayModeIPv6} {
			if m != GatewayIsolated && m != GatewayOpen {
				return BadConfig("gatewayMode", fmt.Sprintf("%q", m), `cannot be together with "isolated" for the other family: an isolated bridge has no address at all`)
			}
		}
		if c.HasGateway() {
			return BadConfig("gatewayMode", `"isolated"`, "cannot be together with isGateway or isDefaultGateway: an isolated bridge has no address")
		}
	}
	if c.Masquerade && !c.masquerades(false) && !c.masquerades(true) {
		return BadConfig("ipMasq", true, fmt.Sprintf("cannot be together with gatewayMode %q, which translates no address", c.GatewayModeIPv4))
	}
	for _, s := range []struct {
		key  string
		addr netip.Addr
		is6  bool
	}{{"snatIPv4", c.SNATIPv4, false}, {"snatIPv6", c.SNATIPv6, true}} {
		switch {
		case !s.addr.IsValid():
		case s.addr.Is6() != s.is6 || s.addr.IsUnspecified() || s.addr.IsLoopback() || s.addr.IsMulticast():
			return BadConfig(s.key, s.addr, "want an address of the host, of this family")
		case !c.masquerades(s.is6):
			return BadConfig(s.key, s.addr, `needs "ipMasq": true or gatewayMode "nat"`)
		}
	}
	return nil
}
