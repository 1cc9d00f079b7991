package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// A service's address is one of the bridge: so the host answers for it by ARP and neighbour
// discovery, and what no rule leads to a backend ends here and goes nowhere else.

// EnsureServiceAddrs gives an interface the addresses of a service, and returns its MAC
// address. The error wraps netlink.ErrNotFound if there is no such interface. It changes
// nothing about addresses that are there.
func (h *Host) EnsureServiceAddrs(device string, addrs []netip.Addr) (net.HardwareAddr, error) {
	d, err := h.conn.Device(device)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", device, err)
	}
	have, err := h.conn.Addrs(d.Index, unix.AF_UNSPEC)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if slices.ContainsFunc(have, func(h netlink.Address) bool { return h.Prefix.Addr() == a }) {
			continue
		}
		if err := h.addServiceAddr(d.Index, a); err != nil && !errors.Is(err, netlink.ErrExists) {
			return nil, fmt.Errorf("address %s of a service, on %s: %w", a, device, err)
		}
	}
	return d.MAC, nil
}

// EnsureLocalAddrs gives the loopback interface addresses of services. Its cost does not grow
// with how many it has.
func (h *Host) EnsureLocalAddrs(addrs []netip.Addr) error {
	d, err := h.conn.Device("lo")
	if err != nil {
		return fmt.Errorf("interface lo: %w", err)
	}
	for _, a := range addrs {
		if err := h.addServiceAddr(d.Index, a); err != nil && !errors.Is(err, netlink.ErrExists) {
			return fmt.Errorf("address %s of a service, on lo: %w", a, err)
		}
	}
	return nil
}

// addServiceAddr adds an address that is deprecated from the start: programs of the host
// that choose none do not get it.
func (h *Host) addServiceAddr(index int, a netip.Addr) error {
	msg := nl.NewIfAddrmsg(netlink.Family(a))
	msg.Index, msg.Prefixlen = uint32(index), uint8(a.BitLen())
	req := netlink.Request(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, msg,
		netlink.Attr(unix.IFA_LOCAL, a.AsSlice()), netlink.Attr(unix.IFA_ADDRESS, a.AsSlice()), netlink.Attr(ifaProto, []byte{netlink.ProtoLibnet}))
	if a.Is6() {
		const forever = 0xffffffff
		info := binary.NativeEndian.AppendUint32(nil, 0) // preferred
		info = binary.NativeEndian.AppendUint32(info, forever)
		req.AddData(netlink.Attr(unix.IFA_CACHEINFO, append(info, make([]byte, 8)...)))
		req.AddData(netlink.AttrUint32(unix.IFA_FLAGS, unix.IFA_F_NODAD))
	}
	return h.conn.Change(req)
}

const ifaProto = 11 // IFA_PROTO (linux/if_addr.h)

// RemoveServiceAddrs takes addresses of a service from an interface; one that is not there,
// or an interface, is success.
func (h *Host) RemoveServiceAddrs(device string, addrs []netip.Addr) error {
	d, err := h.conn.Device(device)
	if errors.Is(err, netlink.ErrNotFound) {
		return nil
	}
	errs := []error{err}
	for _, a := range addrs {
		if err != nil {
			break
		}
		gone := h.conn.RemoveAddr(d.Index, netip.PrefixFrom(a, a.BitLen()))
		if !errors.Is(gone, unix.EADDRNOTAVAIL) {
			errs = append(errs, gone)
		}
	}
	return errors.Join(errs...)
}

// LacksServiceAddrs returns those of the addresses that an interface does not have; all, if
// it is not there.
func (h *Host) LacksServiceAddrs(device string, addrs []netip.Addr) ([]netip.Addr, error) {
	d, err := h.conn.Device(device)
	if errors.Is(err, netlink.ErrNotFound) {
		return addrs, nil
	}
	if err != nil {
		return nil, err
	}
	have, err := h.conn.Addrs(d.Index, unix.AF_UNSPEC)
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool {
		return slices.ContainsFunc(have, func(h netlink.Address) bool { return h.Prefix.Addr() == a })
	}), err
}

// DeviceMAC returns the MAC address of an interface; nil if there is none.
func (h *Host) DeviceMAC(device string) (net.HardwareAddr, error) {
	d, err := h.conn.Device(device)
	if errors.Is(err, netlink.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return d.MAC, nil
}
