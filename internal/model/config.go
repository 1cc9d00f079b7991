package model

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// VLANRange is a range of VLAN IDs, both ends included, 1 to 4094.
type VLANRange struct{ Min, Max uint16 }

// NetworkConfig is how a bridge network behaves. The zero value is a bridge
// without an address whose containers reach each other and nothing else. In
// brackets: the key of the CNI configuration.
type NetworkConfig struct {
	// Bridge [bridge] is the name of the bridge, made if missing. Empty: a
	// name derived from the network's.
	Bridge string
	// MTU [mtu] of the bridge and both ends of every veth, in bytes, 68 to
	// 65535 (with IPv6: from 1280). 0: as the bridge has it.
	MTU int
	// AutoMTU [mtu: "auto"] takes the MTU of the host's default route; without
	// one it is as MTU 0.
	AutoMTU bool
	// Gateway [isGateway] gives the bridge the gateway address of each subnet
	// and switches the host's forwarding on for the families in use.
	Gateway bool
	// DefaultGateway [isDefaultGateway] is Gateway, and a default route over it
	// in each container, for each family whose IPAM sets none.
	DefaultGateway bool
	// GatewayPriority [gwPriority] orders the networks of one container, from
	// -2147483648 to 2147483647: the one with the highest has the default route,
	// for each family of its own. Of equal ones a network with a way out comes
	// before an internal one, then their names decide. WithGatewayPriority is
	// for one endpoint.
	GatewayPriority int `json:",omitempty"`
	// ForceAddress [forceAddress] replaces another address that the bridge has
	// in place of the gateway's; otherwise that is an error.
	ForceAddress bool
	// Masquerade [ipMasq] gives what leaves the bridge from a container's
	// address the address of the host. It needs nf_tables.
	Masquerade bool
	// Hairpin [hairpinMode] lets a frame out by the port it came in.
	Hairpin bool
	// Promiscuous [promiscMode] makes the bridge take every frame. Not with
	// Hairpin.
	Promiscuous bool
	// VLAN [vlan] is the access VLAN of every port, 1 to 4094; 0: none. It
	// needs a kernel with bridge VLAN filtering.
	VLAN int
	// VLANTrunk [vlanTrunk] are the tagged VLANs of every port.
	VLANTrunk []VLANRange
	// PreserveDefaultVLAN [preserveDefaultVlan] keeps VLAN 1 on the ports.
	PreserveDefaultVLAN bool
	// SpoofCheck [macspoofchk] drops frames from a port with a source address
	// other than its container's. It needs nf_tables.
	SpoofCheck bool
	// EnableDAD [enabledad] waits for IPv6 duplicate address detection.
	EnableDAD bool
	// InterfaceDown [disableContainerInterface] leaves the container's
	// interface down. Not with addresses.
	InterfaceDown bool
	// Isolated [portIsolation] marks the ports isolated: they exchange no
	// frames with each other. Needs Linux 4.18.
	Isolated bool
	// Internal [internal] forwards nothing between the bridge and any other
	// interface. Not with DefaultGateway and Masquerade. It needs nf_tables.
	Internal bool
	// NoICC [icc: false] lets containers of the network not reach each other:
	// isolated ports, and nothing is routed back into the bridge. It needs
	// nf_tables.
	NoICC bool
	// GatewayModeIPv4 and GatewayModeIPv6 [gatewayMode] say which clients outside the
	// network may reach the containers.
	GatewayModeIPv4, GatewayModeIPv6 GatewayMode
	// NoMasquerade [ipMasq: false] keeps the modes GatewayNAT and
	// GatewayNATUnprotected from masquerading, which they do otherwise.
	NoMasquerade bool
	// SNATIPv4 and SNATIPv6 [snatIPv4, snatIPv6] are addresses of the host to
	// masquerade as; zero: that of the interface a packet leaves by.
	SNATIPv4, SNATIPv6 netip.Addr
	// TrustedInterfaces [trustedInterfaces] of the host let clients behind them
	// reach published container ports by the container's address under GatewayNAT.
	TrustedInterfaces []string
	// AcceptFwMark [acceptFwMark] lets marked packets in whatever the mode; zero: none.
	AcceptFwMark FwMark
	// IngressPolicy [ingressPolicy] is that of the reference firewall plugin;
	// empty: IngressOpen.
	IngressPolicy IngressPolicy
	// NoHairpin [snat: false] leaves the container itself, its neighbours on the
	// bridge and 127.0.0.0/8 out of the clients of published ports.
	NoHairpin bool
	// MasqueradeAll [masqAll] gives all clients of published ports the host's
	// address as source.
	MasqueradeAll bool
	// Tunnel is how the hosts of a network of the driver "overlay" reach each
	// other; the zero value for a network of one host.
	Tunnel TunnelConfig `json:",omitzero"`
	// NoHost [isolated] keeps this host from opening connections to the network's
	// containers, wherever they are. With Tunnel only.
	NoHost bool `json:",omitempty"`
	// Backend [backend] of the rules; empty: BackendAuto.
	Backend Backend
	// FastPath [fastPath: "auto"] has packets between containers of the network go past the
	// bridge, routing and rules once their flow has come through these; where the kernel
	// cannot, they go the usual way. It needs Linux 5.10 with BPF.
	FastPath FastPath `json:",omitempty"`
}

// FastPath says whether packets take a shorter way.
type FastPath string

// FastPathAuto is where the kernel can. The zero value is never.
const FastPathAuto FastPath = "auto"

// Validate says what cannot be, as a *ConfigError or several joined; nil if
// nothing. It looks at nothing but the configuration.
func (c NetworkConfig) Validate() error {
	if c.Bridge != "" && !ValidBridgeName(c.Bridge) {
		return BadConfig("bridge", fmt.Sprintf("%q", c.Bridge), `want an interface name of 1 to 15 bytes without '/', ':', '%' and blanks, and not "lo", "all" or "default"`)
	}
	if c.MTU != 0 && (c.MTU < 68 || c.MTU > 65535) {
		return BadConfig("mtu", c.MTU, `want "auto", 0 (the bridge's MTU) or 68 to 65535 bytes`)
	}
	if c.VLAN < 0 || c.VLAN > 4094 {
		return BadConfig("vlan", c.VLAN, "want 0 (none) or 1 to 4094")
	}
	if name := fmt.Sprintf("%s.%d", c.Bridge, c.VLAN); c.VLAN > 0 && c.HasGateway() && !ValidIfName(name) {
		return BadConfig("vlan", c.VLAN, fmt.Sprintf("the gateway's interface would be %q: want a bridge of at most %d bytes, and bridge is %q",
			name, len(c.Bridge)+maxIfName-len(name), c.Bridge))
	}
	for _, r := range c.VLANTrunk {
		if r.Min < 1 || r.Max > 4094 || r.Min > r.Max {
			return BadConfig("vlanTrunk", fmt.Sprintf("%d-%d", r.Min, r.Max), "want IDs from 1 to 4094, minID not above maxID")
		}
	}
	if c.FastPath != "" && c.FastPath != FastPathAuto {
		return BadConfig("fastPath", fmt.Sprintf("%q", c.FastPath), `want "auto", or none`)
	}
	return errors.Join(c.validateTogether(), c.validateGateway(), c.validateTunnel())
}

func (c NetworkConfig) validateTogether() error {
	exclusive := []struct {
		key, other string
		both       bool
	}{
		{"hairpinMode", "promiscMode", c.Hairpin && c.Promiscuous},
		{"internal", "ipMasq", c.Internal && c.Masquerade},
		{"internal", "isDefaultGateway", c.Internal && c.DefaultGateway},
	}
	for _, x := range exclusive {
		if x.both {
			return BadConfig(x.key, true, "cannot be together with "+x.other+": true; remove one of them")
		}
	}
	return nil
}

// NeedsRules says that endpoints may have firewall elements.
func (c NetworkConfig) NeedsRules() bool {
	return c.Tunnel.Used() || c.SpoofCheck || c.IsInternal() || c.ForbidsICC() || c.IsApart() || c.MasqueradeFamilies() != firewall.Families{} ||
		c.GatewayModeIPv4 != GatewayOpen || c.GatewayModeIPv6 != GatewayOpen
}

func (c NetworkConfig) HasGateway() bool { return c.Gateway || c.DefaultGateway }

// Address is one address of an endpoint.
type Address struct {
	// Prefix is the address with the length of its subnet.
	Prefix netip.Prefix
	// Gateway of the subnet; zero: none.
	Gateway netip.Addr
}

// Route is a route in the container.
type Route struct {
	Dst netip.Prefix
	// Gateway is the next hop; zero: the gateway of the endpoint's first
	// address of the family, or on-link where it has none.
	Gateway netip.Addr
	// MTU and AdvMSS in bytes; 0 leaves them unset.
	MTU, AdvMSS int
	// Priority is the metric; 0: by the priorities of the container's networks.
	Priority int
	// Table (nil: main) and Scope (nil: chosen by the kernel's rules) are
	// numbers as in rtnetlink(7).
	Table, Scope *int
}

// String puts the route into the words of ip-route(8).
func (r Route) String() string {
	s := fmt.Sprintf("%s via %s mtu %d advmss %d metric %d", r.Dst, r.Gateway, r.MTU, r.AdvMSS, r.Priority)
	if r.Table != nil {
		s += fmt.Sprintf(" table %d", *r.Table)
	}
	if r.Scope != nil {
		s += fmt.Sprintf(" scope %d", *r.Scope)
	}
	return s
}

// DNS is what an IPAM says of name servers. libnet writes no file for it; it
// is handed on to the runtime.
type DNS struct {
	Nameservers []string
	Domain      string
	Search      []string
	Options     []string
}

// Addressing is what an endpoint gets from its IPAM.
type Addressing struct {
	Addresses []Address
	Routes    []Route
	DNS       DNS
}

// Complete fills in what follows from the network: gateways and the default
// routes. It changes nothing in a.
func (a Addressing) Complete(c NetworkConfig) (Addressing, error) {
	out := Addressing{Addresses: slices.Clone(a.Addresses), DNS: a.DNS}
	for i, addr := range out.Addresses {
		gw := addr.Gateway
		if !gw.IsValid() && c.HasGateway() {
			gw = FirstOf(addr.Prefix)
		}
		if err := c.ValidateSubnet("ipam", addr.Prefix, gw); err != nil {
			return Addressing{}, err
		}
		if gw.IsValid() && gw == addr.Prefix.Addr() {
			return Addressing{}, BadConfig("ipam", gw, "is the gateway's own address, and was given to the container: exclude it from the range or name another gateway")
		}
		out.Addresses[i].Gateway = gw
	}
	for _, r := range a.Routes {
		if !r.Gateway.IsValid() {
			r.Gateway = out.Gateway(r.Dst.Addr().Is6())
		}
		out.Routes = append(out.Routes, r)
	}
	if c.DefaultGateway {
		out.addDefaultRoutes(a.Routes)
		if err := out.lacksDefaultRoute(c); err != nil {
			return Addressing{}, err
		}
	} else {
		out.AddTunnelRoutes(c.Tunnel)
	}
	for _, r := range out.Routes {
		if !out.reaches(r.Gateway) {
			return Addressing{}, BadConfig("ipam.routes", r.Dst.String()+" via "+r.Gateway.String(), "want a gateway in the subnet of one of the addresses")
		}
	}
	return out, nil
}

// FirstOf returns the address that is the gateway of a subnet unless another is
// named. Subnets of one or two addresses have none: containers get them whole.
func FirstOf(subnet netip.Prefix) netip.Addr {
	if subnet.Addr().BitLen()-subnet.Bits() < 2 {
		return netip.Addr{}
	}
	return subnet.Masked().Addr().Next()
}

// reaches says whether a gateway is on the endpoint's link: in the subnet of
// an address, in the destination of a route without a gateway, or link-local.
// The zero gateway is.
func (a Addressing) reaches(gw netip.Addr) bool {
	return !gw.IsValid() || gw.IsLinkLocalUnicast() ||
		slices.ContainsFunc(a.Addresses, func(addr Address) bool { return addr.Prefix.Contains(gw) }) ||
		slices.ContainsFunc(a.Routes, func(r Route) bool { return !r.Gateway.IsValid() && r.Dst.Contains(gw) })
}

// Gateway returns the gateway of the first address of a family.
func (a Addressing) Gateway(is6 bool) netip.Addr {
	for _, addr := range a.Addresses {
		if addr.Prefix.Addr().Is6() == is6 && addr.Gateway.IsValid() {
			return addr.Gateway
		}
	}
	return netip.Addr{}
}

// addDefaultRoutes adds one for each family unless given already holds one
// with a gateway, as the reference bridge plugin does.
func (a *Addressing) addDefaultRoutes(given []Route) {
	for _, any := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		gw := a.Gateway(any.Addr().Is6())
		has := slices.ContainsFunc(given, func(r Route) bool { return r.Dst == any && r.Gateway.IsValid() })
		if !gw.IsValid() || has {
			continue
		}
		a.Routes = slices.DeleteFunc(a.Routes, func(r Route) bool { return r.Dst == any })
		a.Routes = append(a.Routes, Route{Dst: any, Gateway: gw})
	}
}

// lacksDefaultRoute names the first address of a family that has no default route, unless the
// network is isolated in that family.
func (a Addressing) lacksDefaultRoute(c NetworkConfig) error {
	for _, addr := range a.Addresses {
		is6 := addr.Prefix.Addr().Is6()
		leads := func(r Route) bool { return r.Dst.Bits() == 0 && r.Dst.Addr().Is6() == is6 }
		if c.Mode(is6) != GatewayIsolated && !slices.ContainsFunc(a.Routes, leads) {
			return BadConfig("ipam.gateway", "missing", fmt.Sprintf("subnet %s has no address left for the bridge, "+
				"so there is no default route: name the gateway, want a larger subnet, or isDefaultGateway false", addr.Prefix.Masked()))
		}
	}
	return nil
}

// Families says which address families are in use.
func (a Addressing) Families() (v4, v6 bool) {
	for _, addr := range a.Addresses {
		v6 = v6 || addr.Prefix.Addr().Is6()
		v4 = v4 || addr.Prefix.Addr().Is4()
	}
	return v4, v6
}

func (a Addressing) Addrs() []netip.Addr {
	var all []netip.Addr
	for _, addr := range a.Addresses {
		all = append(all, addr.Prefix.Addr())
	}
	return all
}

// ParseMAC accepts what a container's interface can have. The error is a
// *ConfigError for key.
func ParseMAC(key, s string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(s)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 || slices.Equal(mac, make([]byte, 6)) {
		return nil, BadConfig(key, fmt.Sprintf("%q", s), `want a unicast address of six bytes, as "02:00:00:12:34:56"`)
	}
	return mac, nil
}

// OnBridge is the gateway as an address of the bridge. A link-local one is in
// its own subnet (RFC 4291, section 2.5.6), whatever that of the containers is.
func (a Address) OnBridge() netip.Prefix {
	bits := a.Prefix.Bits()
	if !a.Prefix.Masked().Contains(a.Gateway) {
		bits = 64
	}
	return netip.PrefixFrom(a.Gateway, bits)
}
