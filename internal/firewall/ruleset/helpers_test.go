package ruleset

import (
	"net/netip"
	"strings"

	"github.com/libnet-cni/libnet/internal/firewall"
)

var both = firewall.Families{IPv4: true, IPv6: true}

func addrs(ss ...string) []netip.Addr {
	all := []netip.Addr{}
	for _, s := range ss {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

func prefixes(ss ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range ss {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

func tcp(host, container uint16) firewall.PortMap {
	return firewall.PortMap{Protocol: firewall.TCP, HostPort: host, ContainerPort: container}
}

func at(ip string, m firewall.PortMap) firewall.PortMap {
	m.HostIP = netip.MustParseAddr(ip)
	return m
}

func upTo(last uint16, m firewall.PortMap) firewall.PortMap {
	m.HostPortEnd = last
	return m
}

func from(m firewall.PortMap, sources ...string) firewall.PortMap {
	m.Sources = prefixes(sources...)
	return m
}

func words(s string) []string { return strings.Fields(s) }
