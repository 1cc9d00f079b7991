package link

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// Reverse path filtering of IPv4 (RFC 3704, net.ipv4.conf.*.rp_filter). The value in force
// for an interface is the higher of its own value and that of "all".
const (
	rpStrict = 1 // drops what would not be answered by the interface it came by
	rpLoose  = 2 // drops what would not be answered at all
)

// RPFilter reads the filter of an interface, or of all.
func rpFilter(c *netlink.Conn, index int) (int, error) {
	value, err := c.Netconf(unix.AF_INET, index, netlink.NetconfaRPFilter)
	if err != nil {
		return 0, fmt.Errorf("read rp_filter of interface %d: %w", index, err)
	}
	return value, nil
}

// loosen makes strict reverse path filters loose on the way of a container that
// has several networks: what comes in by one of them, as by a published port,
// it answers by the one with the default route. The filters are those of the
// container's interfaces that are ours, and of the bridges behind them. A filter
// that is off or loose stays as it is, and so does any filter while a container
// has one network: a strict one keeps it from sending with the addresses of
// others.
func (h *Links) loosen(ct *netlink.Conn, d *netlink.Device, l Link, br *netlink.Device, others []int) error {
	if !slices.ContainsFunc(l.Addrs, func(p netip.Prefix) bool { return p.Addr().Is4() }) {
		return nil
	}
	inside, outside := []int{d.Index}, []int{br.Index}
	if l.State.VLANName != "" {
		if holder, err := h.conn.Device(l.State.VLANName); err == nil {
			outside = append(outside, holder.Index)
		}
	}
	for _, index := range others {
		other, err := ct.DeviceByIndex(index)
		if errors.Is(err, netlink.ErrNotFound) {
			continue // gone since
		}
		if err != nil {
			return fmt.Errorf("interface %d of the container: %w", index, err)
		}
		if _, ours := parsePrecedence(other.Alias); !ours || other.Kind != "veth" {
			continue
		}
		inside = append(inside, index)
		host, err := h.conn.DeviceByIndex(other.Peer)
		if err != nil || host.Master == 0 {
			continue // no port any more
		}
		// The container may have made the interface, and named it and its peer's
		// index as it liked.
		if peers, err := h.isPeer(host, other, l.Netns); err != nil {
			return err
		} else if peers {
			outside = append(outside, host.Master)
		}
	}
	return errors.Join(loosenAll(ct, inside), loosenAll(h.conn, outside))
}

func loosenAll(c *netlink.Conn, indexes []int) error {
	all, err := rpFilter(c, netlink.NetconfAll)
	if err != nil {
		return err
	}
	loose := netlink.Nest(unix.IFLA_AF_SPEC, netlink.Nest(unix.AF_INET, netlink.Nest(unix.IFLA_INET_CONF, netlink.AttrUint32(netlink.IPv4RPFilter, rpLoose))))
	for _, index := range indexes {
		own, err := rpFilter(c, index)
		if err == nil && max(own, all) == rpStrict {
			err = c.SetLink(index, 0, 0, loose)
		}
		if err != nil && !errors.Is(err, netlink.ErrNotFound) && !errors.Is(err, unix.EINVAL) { // gone since
			return fmt.Errorf("make rp_filter of interface %d loose: %w", index, err)
		}
	}
	return nil
}
