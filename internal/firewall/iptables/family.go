package iptables

import (
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// family is an address family: iptables keeps the rules of each by themselves.
type family uint8

const (
	ipv4 family = iota
	ipv6
)

// bothFamilies are in the order in which rules are put in place.
func bothFamilies() []family { return []family{ipv4, ipv6} }

// command is the name of the tool, to which "-save" and "-restore" are added.
func (f family) command() string {
	if f == ipv6 {
		return "ip6tables"
	}
	return "iptables"
}

func (f family) has(a netip.Addr) bool { return a.IsValid() && a.Is4() == (f == ipv4) }

// unspecified is the address that stands for any.
func (f family) unspecified() netip.Addr {
	if f == ipv6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

func (f family) multicast() string {
	if f == ipv6 {
		return "ff00::/8"
	}
	return "224.0.0.0/4"
}

func (f family) icmp() string {
	if f == ipv6 {
		return "ipv6-icmp"
	}
	return "icmp"
}

func (f family) policy(n firewall.Network) firewall.Policy {
	if f == ipv6 {
		return n.IPv6
	}
	return n.IPv4
}

func (f family) masquerade(e firewall.Endpoint) bool {
	if f == ipv6 {
		return e.Masquerade.IPv6
	}
	return e.Masquerade.IPv4
}

// conditions are the matches that the configuration has chosen, word by word.
func (f family) conditions(e firewall.Endpoint) []string {
	if f == ipv6 {
		return e.ConditionsIPv6
	}
	return e.ConditionsIPv4
}

// host is a prefix that is one address, as iptables-save prints it.
func host(a netip.Addr) string { return fmt.Sprintf("%s/%d", a, a.BitLen()) }

// familiesOf returns the families of addrs. Without an address a network has
// its rules in all that the kernel has.
func familiesOf(addrs []netip.Addr) []family {
	if len(addrs) == 0 {
		if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
			return []family{ipv4}
		}
		return bothFamilies()
	}
	return slices.DeleteFunc(bothFamilies(), func(f family) bool { return !slices.ContainsFunc(addrs, f.has) })
}
