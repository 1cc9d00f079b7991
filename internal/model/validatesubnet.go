package model

import (
	"fmt"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/ipmath"
)

// ValidateSubnet says why a subnet cannot be that of containers, or gateway,
// zero for none, its gateway. The key is that of the two, with ".subnet" or
// ".gateway".
func (c NetworkConfig) ValidateSubnet(key string, subnet netip.Prefix, gateway netip.Addr) error {
	subnet = subnet.Masked()
	for _, s := range special() {
		if subnet.Overlaps(s.prefix) {
			return &ConfigError{key + ".subnet", subnet.String(), "overlaps " + s.prefix.String() + ", which is for " + s.use}
		}
	}
	refuse := func(format string, args ...any) error {
		return &ConfigError{key + ".gateway", gateway.String(), fmt.Sprintf(format, args...)}
	}
	switch in := subnet.Contains(gateway); {
	case !gateway.IsValid():
	case !in && c.HasGateway() && (gateway.Is4() || !gateway.IsLinkLocalUnicast()):
		return refuse("is not in subnet %s, so the bridge cannot be the gateway: want an address of it (IPv6: or a link-local one, as fe80::1), or isGateway and isDefaultGateway false", subnet)
	case in && subnet.Addr().Is4() && subnet.Bits() < 31 && (gateway == subnet.Addr() || gateway == ipmath.Last(subnet)):
		return refuse("is the network or the broadcast address of subnet %s", subnet)
	case gateway.IsMulticast() || gateway.IsLoopback() || gateway.IsUnspecified():
		return refuse("is not the address of one machine")
	}
	return nil
}

type reserved struct {
	prefix netip.Prefix
	use    string
}

// special are networks that no host routes to its containers (RFC 6890).
func special() []reserved {
	v6 := func(a netip.Addr, bits int) netip.Prefix { return netip.PrefixFrom(a, bits) }
	v4 := func(a, b, c, d byte, bits int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{a, b, c, d}), bits)
	}
	return []reserved{
		{v4(127, 0, 0, 0, 8), "the host itself"}, {v4(0, 0, 0, 0, 8), "no address yet"},
		{v4(224, 0, 0, 0, 4), "multicast"}, {v4(255, 255, 255, 255, 32), "broadcast"},
		{v6(netip.IPv6Unspecified(), 128), "no address yet"}, {v6(netip.IPv6Loopback(), 128), "the host itself"},
		{v6(netip.AddrFrom16([16]byte{0xfe, 0x80}), 10), "link-local addresses"}, {v6(netip.AddrFrom16([16]byte{0xff}), 8), "multicast"},
	}
}
