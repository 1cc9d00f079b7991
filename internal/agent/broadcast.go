package agent

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/overlay"
)

// withoutBroadcast leaves out hosts whose address is the broadcast address of a
// network that this host is in: what is sent there, all in that network get.
func withoutBroadcast(hosts []overlay.Host) (left []overlay.Host, problems []string, err error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, nil, fmt.Errorf("list addresses: %w", err)
	}
	all := map[netip.Addr]bool{}
	for _, a := range addrs {
		if n, is := a.(*net.IPNet); is {
			if b, ok := broadcastOf(n); ok {
				all[b] = true
			}
		}
	}
	left = slices.DeleteFunc(slices.Clone(hosts), func(h overlay.Host) bool {
		if all[h.Address] {
			problems = append(problems, fmt.Sprintf("node %s has the address %s, which is a broadcast address", h.Name, h.Address))
		}
		return all[h.Address]
	})
	return left, problems, nil
}

// broadcastOf returns the last address of a network of IPv4 that has one for
// this use (RFC 3021: not those of /31).
func broadcastOf(n *net.IPNet) (netip.Addr, bool) {
	ip := n.IP.To4()
	ones, bits := n.Mask.Size()
	if ip == nil || bits != 32 || ones > 30 {
		return netip.Addr{}, false
	}
	last := make([]byte, len(ip))
	for i := range ip {
		last[i] = ip[i] | ^n.Mask[i]
	}
	return netip.AddrFromSlice(last)
}
