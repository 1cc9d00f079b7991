package tunnel

import (
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/sorting"
)

// Link is an interface of a host, as the other hosts of its segment see it.
type Link struct {
	// MACs are what frames from there may have as their source. Those to it have the first one.
	MACs []MAC `json:"macs"`
	// Addresses of the host on the interface, those of IPv6 that are link-local among them.
	Addresses []netip.Addr `json:"addresses"`
}

// Same says that two say the same.
func (l Link) Same(o Link) bool {
	return slices.Equal(l.MACs, o.MACs) && slices.Equal(l.Addresses, o.Addresses)
}

// Segments looks at the Ethernet segments that this host is on: those of the network namespace
// of the thread that opened it. It is for one goroutine.
type Segments struct{ conn *netlink.Conn }

// OpenSegments opens a socket.
func OpenSegments() (*Segments, error) {
	c, err := netlink.Open()
	if err != nil {
		return nil, err
	}
	return &Segments{c}, nil
}

// Close closes it.
func (s *Segments) Close() { s.conn.Close() }

// Own returns the interface that has an address, and what other hosts see of it. Empty: it is
// not of Ethernet, or no interface has the address.
func (s *Segments) Own(a netip.Addr) (device string, l Link, err error) {
	own, err := host.OwnAddrs(s.conn, netlink.Family(a))
	if err != nil {
		return "", Link{}, err
	}
	index, there := own[a]
	if !there {
		return "", Link{}, nil
	}
	d, err := s.conn.DeviceByIndex(index)
	if errors.Is(err, netlink.ErrNotFound) || err == nil && !onSegment(d) {
		return "", Link{}, nil
	}
	if err != nil {
		return "", Link{}, err
	}
	l.MACs = []MAC{MAC(d.MAC)}
	if d.Kind == "bond" || d.Kind == "team" { // some of their modes send with the card's own
		ports, err := s.conn.Devices(index)
		if err != nil {
			return "", Link{}, err
		}
		for _, p := range ports {
			if len(p.MAC) == len(MAC{}) && !slices.Contains(l.MACs, MAC(p.MAC)) {
				l.MACs = append(l.MACs, MAC(p.MAC))
			}
		}
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		as, err := s.conn.Addrs(index, family)
		if err != nil {
			return "", Link{}, err
		}
		for _, a := range as {
			if a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 {
				l.Addresses = append(l.Addresses, a.Prefix.Addr())
			}
		}
	}
	sorting.Stable(l.Addresses, netip.Addr.Compare)
	return d.Name, l, nil
}

// To returns the interface by which an address is reached without a router, where it is of
// Ethernet; empty: there is none.
func (s *Segments) To(a netip.Addr) (device string, err error) {
	r, err := s.conn.RouteTo(a, 0)
	if err != nil || r.Gateway.IsValid() || r.OIF == 0 || r.Protocol == protocolOurs {
		return "", nil //nolint:nilerr // no way leads there now, or it is this host's own address
	}
	d, err := s.conn.DeviceByIndex(r.OIF)
	if errors.Is(err, netlink.ErrNotFound) || err == nil && !onSegment(d) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return d.Name, nil
}

// onSegment says that a device leads to other hosts by their MACs.
func onSegment(d *netlink.Device) bool {
	return len(d.MAC) == len(MAC{}) && d.Flags&(unix.IFF_LOOPBACK|unix.IFF_NOARP|unix.IFF_POINTOPOINT) == 0
}
