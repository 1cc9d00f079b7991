package firewall

import (
	"net/netip"

	"github.com/google/go-cmp/cmp"
)

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

func tcp(host, container uint16) PortMap {
	return PortMap{Protocol: TCP, HostPort: host, ContainerPort: container}
}

func at(ip string, m PortMap) PortMap {
	m.HostIP = netip.MustParseAddr(ip)
	return m
}

func upTo(last uint16, m PortMap) PortMap {
	m.HostPortEnd = last
	return m
}

func from(m PortMap, sources ...string) PortMap {
	m.Sources = prefixes(sources...)
	return m
}

var compareAddrs = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}
