package netconf

import (
	"net/netip"
	"strings"

	"github.com/libnet-cni/libnet/internal/jsonr"
)

// Port is a port of the host, or a range of them, that the runtime asks for. Which numbers are
// possible, and together, the engine says; its PortMapping has the same fields.
type Port struct {
	Protocol      string // in lower case; empty: "tcp"
	HostIP        netip.Addr
	HostPort      int
	HostPortEnd   int // 0: one port
	ContainerPort int
	Sources       []netip.Prefix
}

func readPorts(v jsonr.Value) []Port {
	var ports []Port
	for _, item := range v.Items() {
		ports = append(ports, readPort(inside(item, portTable)))
	}
	return ports
}

func readPort(v values) Port {
	p := Port{HostIP: v[portHostIP].Addr(), Sources: readSources(v[portSourceRanges])}
	v[portProtocol].String(&p.Protocol)
	p.Protocol = strings.ToLower(p.Protocol)
	v[portHostPort].Int(&p.HostPort)
	v[portHostPortEnd].Int(&p.HostPortEnd)
	if p.HostPortEnd != 0 {
		p.ContainerPort = p.HostPort // a range keeps its numbers unless it says otherwise
	}
	v[portContainerPort].Int(&p.ContainerPort)
	if p.HostIP.Zone() != "" {
		v[portHostIP].Refuse("an address without a zone")
	}
	return p
}

// readSources reads prefixes and single addresses; nil if there are none.
func readSources(v jsonr.Value) []netip.Prefix {
	var all []netip.Prefix
	for _, item := range v.Items() {
		s, _ := item.Text()
		p, err := netip.ParsePrefix(s)
		if a, addrErr := netip.ParseAddr(s); addrErr == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
		}
		if err != nil || p != p.Masked() || p.Addr().Is4In6() {
			item.Refuse(`an address as "10.1.0.5", or a prefix without host bits as "10.1.0.0/16"`)
		}
		all = append(all, p)
	}
	return all
}
