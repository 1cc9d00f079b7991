package host

import (
	"context"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// AcceptRA is accept_ra for "unless the interface forwards"; 2 is "always".
const acceptRA = 1

// forwardIPv6 switches the host's IPv6 forwarding on. From then on the kernel
// takes router advertisements only where accept_ra is 2, and at once drops the
// default routes that it learnt elsewhere (ipv6_accept_ra in net/addrconf.h): a
// host whose IPv6 comes by them would lose it. So those interfaces get 2 first.
func (h *Host) forwardIPv6() error {
	on, err := h.Sysctls.Get(ForwardV6)
	if err != nil {
		return NoIPv6(err)
	}
	if on == "1" {
		return nil
	}
	all, err := h.advertised()
	if err != nil {
		return err
	}
	for _, d := range all {
		if _, err := h.Sysctls.SetIPv6(d.Name, false, Sysctl{"accept_ra", "2"}); err != nil {
			return err
		}
	}
	return h.Sysctls.Set(ForwardV6, "1")
}

// LostAdvertisements returns the names of the interfaces that take no router
// advertisements any more because they forward, though addresses or routes that
// they once learnt from them are still there.
func (h *Host) LostAdvertisements(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	all, err := h.advertised()
	var names []string
	for _, d := range all {
		if d.V6.Forwarding != 0 {
			names = append(names, d.Name)
		}
	}
	return names, err
}

// advertised returns the interfaces with accept_ra 1 of which an address or a
// route came by a router advertisement. With 0 another program takes them.
func (h *Host) advertised() ([]*netlink.Device, error) {
	all, err := h.conn.Devices(0)
	if err != nil {
		return nil, fmt.Errorf("look for router advertisements: %w", err)
	}
	all = slices.DeleteFunc(all, func(d *netlink.Device) bool {
		return !d.V6.Known || d.V6.Disabled || d.V6.AcceptRA != acceptRA || d.Port || d.Flags&unix.IFF_LOOPBACK != 0
	})
	if len(all) == 0 {
		return nil, nil
	}
	learnt, err := h.learnt()
	if err != nil {
		return nil, fmt.Errorf("look for router advertisements: %w", err)
	}
	return slices.DeleteFunc(all, func(d *netlink.Device) bool { return !learnt[d.Index] }), nil
}

// learnt returns the links that have something from a router advertisement.
// Kernels before 5.18 do not say it of an address: there one that expires
// tells.
func (h *Host) learnt() (map[int]bool, error) {
	by := map[int]bool{}
	rs, err := h.conn.Routes(unix.AF_INET6, 0, 0)
	if err != nil {
		return nil, err
	}
	for _, r := range rs {
		if r.Protocol == unix.RTPROT_RA {
			by[r.OIF] = true
		}
	}
	msgs, err := h.conn.Dump(func() *nl.NetlinkRequest {
		return netlink.Request(unix.RTM_GETADDR, 0, nl.NewIfAddrmsg(unix.AF_INET6))
	}, unix.RTM_NEWADDR)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, b := range msgs {
		a, index, err := netlink.ParseAddr(b)
		if err != nil {
			return nil, err
		}
		if a.Protocol == netlink.ProtoRA || a.Protocol == 0 && a.Flags&unix.IFA_F_PERMANENT == 0 {
			by[index] = true
		}
	}
	return by, nil
}
