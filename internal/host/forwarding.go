package host

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

const (
	ForwardV4 = "net/ipv4/ip_forward"
	ForwardV6 = "net/ipv6/conf/all/forwarding"
)

// Forwarding reports whether IPv4 and IPv6 forwarding are on in the Host's
// namespace. A kernel without IPv6 reports false.
func (h *Host) Forwarding() (v4, v6 bool, err error) {
	on4, err := h.conn.Netconf(unix.AF_INET, netlink.NetconfAll, netlink.NetconfaForwarding)
	if err != nil {
		return false, false, fmt.Errorf("read net.ipv4.ip_forward: %w", err)
	}
	on6, err := h.conn.Netconf(unix.AF_INET6, netlink.NetconfAll, netlink.NetconfaForwarding)
	if err != nil && !errors.Is(err, netlink.ErrUnsupported) {
		return false, false, fmt.Errorf("read net.ipv6.conf.all.forwarding: %w", err)
	}
	return on4 != 0, on6 != 0, nil
}

// Forward turns on IPv4 and/or IPv6 forwarding in the calling thread's
// namespace, writing only what is not already on. False leaves a family
// alone. Interfaces by which the host gets its own IPv6 from router
// advertisements keep on taking them (accept_ra 2), which is not undone. IPv6
// on a kernel without it is ErrUnsupported.
func (h *Host) Forward(ctx context.Context, v4, v6 bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if v4 {
		if err := h.Sysctls.Set(ForwardV4, "1"); err != nil {
			return err
		}
	}
	if v6 {
		return h.forwardIPv6()
	}
	return nil
}

// NotForwarding returns which of the bridges, and of the interfaces that IPv4
// default routes lead by, do not forward IPv4 whatever the host does: of the
// setting of an interface the kernel asks for every packet that comes in by it.
// A bridge that is missing is left out.
func (h *Host) NotForwarding(ctx context.Context, bridges []string) (off, uplinks []string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	for _, name := range bridges {
		d, err := h.conn.Device(name)
		if errors.Is(err, netlink.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		if d.V4.Known && d.V4.Forwarding == 0 && !slices.Contains(off, name) {
			off = append(off, name)
		}
	}
	rs, err := h.conn.Routes(unix.AF_INET, 0, 0)
	if err != nil {
		return nil, nil, err
	}
	seen := map[int]bool{}
	for _, r := range rs {
		if r.Dst.Bits() != 0 || r.OIF == 0 || seen[r.OIF] {
			continue
		}
		seen[r.OIF] = true
		d, err := h.conn.DeviceByIndex(r.OIF)
		if errors.Is(err, netlink.ErrNotFound) {
			continue // gone since the list
		}
		if err != nil {
			return nil, nil, err
		}
		if d.V4.Known && d.V4.Forwarding == 0 {
			uplinks = append(uplinks, d.Name)
		}
	}
	return off, uplinks, nil
}
