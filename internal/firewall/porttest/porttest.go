// Package porttest has short words for addresses and published ports. It is for tests.
package porttest

import (
	"net/netip"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// Addrs returns addresses; without any a list that is empty, not nil.
func Addrs(ss ...string) []netip.Addr {
	all := []netip.Addr{}
	for _, s := range ss {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

// Prefixes returns prefixes; without any nil.
func Prefixes(ss ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range ss {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// TCP publishes a port of any address.
func TCP(host, container uint16) firewall.PortMap {
	return firewall.PortMap{Protocol: firewall.TCP, HostPort: host, ContainerPort: container}
}

// At is m at one address of the host.
func At(ip string, m firewall.PortMap) firewall.PortMap {
	m.HostIP = netip.MustParseAddr(ip)
	return m
}

// UpTo is m with the ports of the host up to the last one.
func UpTo(last uint16, m firewall.PortMap) firewall.PortMap {
	m.HostPortEnd = last
	return m
}

// From is m for some clients.
func From(m firewall.PortMap, sources ...string) firewall.PortMap {
	m.Sources = Prefixes(sources...)
	return m
}
