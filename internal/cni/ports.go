package cni

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/model"
)

// portMappings is the key of the capability, and of the ports in a result.
const portMappings = "portMappings"

// Ports returns the ports of the host that the runtime asks for. Which numbers
// are possible, and together, libnet says.
func (c *Call) Ports() ([]model.PortMapping, error) {
	var ports []model.PortMapping
	for _, item := range c.Conf.Object("runtimeConfig").List(portMappings) {
		ports = append(ports, readPort(item.Object()))
	}
	return ports, c.Conf.Err()
}

func readPort(o *Object) model.PortMapping {
	p := model.PortMapping{HostIP: o.Addr("hostIP"), Sources: readSources(o)}
	o.String("protocol", &p.Protocol)
	p.Protocol = strings.ToLower(p.Protocol)
	o.Int("hostPort", &p.HostPort)
	o.Int("hostPortEnd", &p.HostPortEnd)
	if p.HostPortEnd != 0 {
		p.ContainerPort = p.HostPort // a range keeps its numbers unless it says otherwise
	}
	o.Int("containerPort", &p.ContainerPort)
	if p.HostIP.Zone() != "" {
		o.Refuse("hostIP", "an address without a zone")
	}
	return p
}

// readSources reads prefixes and single addresses; nil if there are none.
func readSources(o *Object) []netip.Prefix {
	var all []netip.Prefix
	for _, item := range o.List("sourceRanges") {
		s, _ := unquote(item.raw)
		p, err := netip.ParsePrefix(s)
		if a, addrErr := netip.ParseAddr(s); addrErr == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
		}
		if err != nil || p != p.Masked() || p.Addr().Is4In6() {
			refuseItem(item, `an address as "10.1.0.5", or a prefix without host bits as "10.1.0.0/16"`)
		}
		all = append(all, p)
	}
	return all
}

// NamePorts has the result tell the ports that ADD got, if it was asked to
// choose any of them: a runtime learns the number nowhere else.
func (r *Result) NamePorts(asked, got []model.PortMapping) {
	if slices.ContainsFunc(asked, func(p model.PortMapping) bool { return p.HostPort == 0 }) {
		r.ports = got
	}
}

// withPorts adds ports to those of a result.
func withPorts(result []byte, ports []model.PortMapping) []byte {
	keys := splitObject(result)
	all := []any{}
	for key, value := range keys {
		if strings.EqualFold(key, portMappings) && isList(value) {
			for _, item := range splitList(value) {
				all = append(all, item)
			}
		}
	}
	for _, p := range ports {
		all = append(all, namedPort{p.HostPort, p.HostPortEnd, p.ContainerPort, p.Protocol, p.HostIP})
	}
	setKey(keys, portMappings, all)
	return mustMarshal(keys)
}

// namedPort is a port as a result names it.
type namedPort struct {
	HostPort      int        `json:"hostPort"`
	HostPortEnd   int        `json:"hostPortEnd,omitempty"`
	ContainerPort int        `json:"containerPort"`
	Protocol      string     `json:"protocol"`
	HostIP        netip.Addr `json:"hostIP,omitzero"`
}

// Choice returns a key's value, which must be one of those allowed; empty if it
// is missing or empty.
func Choice[T ~string](o *Object, key string, allowed ...T) T {
	var s string
	if o.String(key, &s); s == "" {
		return ""
	}
	return oneOf(o, key, allowed...)
}

// Backend returns the value of a key that names a backend of the firewall.
func Backend(o *Object, key string) model.Backend {
	return Choice(o, key, model.BackendAuto, model.BackendNFTables, model.BackendIPTables)
}

// LooseBackend is Backend for the first of keys that names one, empty for what
// cannot be read.
func (c *Call) LooseBackend(keys ...string) model.Backend {
	for _, key := range keys {
		switch b := model.Backend(c.LooseString(key)); b {
		case model.BackendAuto, model.BackendNFTables, model.BackendIPTables:
			return b
		}
	}
	return ""
}
