package link

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
)

// The settings of the host for a bridge: which packets it takes, answers and forwards.

const (
	// ipv4 settings of an isolated bridge. ARP is answered for no address
	// (arp_ignore 8); else the kernel answers for those of all interfaces. And a
	// source must be one that is reached by the same interface (rp_filter 1),
	// which for an interface without an address no source is, neither if any
	// interface will do (rp_filter 2; fib_validate_source in
	// net/ipv4/fib_frontend.c).
	arpIgnoreAll   = 8
	rpFilterStrict = 1
)

// takeOver prepares a bridge that is there already.
func (h *Links) takeOver(d *netlink.Device, b Bridge, u *netlink.Undo) error {
	if !b.ours(d) {
		return h.pinMAC(d)
	}
	if b.Isolated || !d.V6.Known || d.V6.Disabled {
		return nil
	}
	off, err := h.shouldBeOff(d, b)
	if err != nil {
		return err
	}
	switch {
	case off:
		return h.setBack(d, host.Sysctl{Key: "disable_ipv6", Value: "1"}, "0", u)
	case d.V6.AcceptRA != 0:
		return h.setBack(d, host.Sysctl{Key: "accept_ra", Value: "0"}, strconv.Itoa(d.V6.AcceptRA), u)
	}
	return nil
}

// shouldBeOff says that IPv6 is on, on a bridge that was made without it, and
// that no other network on it has an IPv6 gateway there.
func (h *Links) shouldBeOff(d *netlink.Device, b Bridge) (bool, error) {
	if b.IPv6 != host.IPv6Off || b.Alias == "" || d.Alias != b.Alias || !d.V6.Known || d.V6.Disabled {
		return false, nil
	}
	have, err := h.conn.Addrs(d.Index, unix.AF_INET6)
	return err == nil && len(given(have)) == 0, err
}

// setBack sets an IPv6 setting of a link and pushes how to put it back.
func (h *Links) setBack(d *netlink.Device, s host.Sysctl, before string, u *netlink.Undo) error {
	if _, err := h.host.Sysctls.SetIPv6(d.Name, true, s); err != nil {
		return err
	}
	u.Push(func() error {
		_, err := h.host.Sysctls.SetIPv6(d.Name, false, host.Sysctl{Key: s.Key, Value: before})
		return err
	})
	return nil
}

// pinMAC makes the MAC of a bridge its own. One that has none of its own takes
// the lowest of its ports', and loses it with that port: neighbours would send
// to a MAC that is gone. A bridge without a port may have none at all.
func (h *Links) pinMAC(d *netlink.Device) error {
	if macIsSet(d) {
		return nil
	}
	ports, err := h.conn.Devices(d.Index)
	if err != nil {
		return err
	}
	if len(ports) > 0 && !slices.ContainsFunc(ports, func(p *netlink.Device) bool { return bytes.Equal(p.MAC, d.MAC) }) {
		return nil // it is no port's, so it is its own
	}
	mac := d.MAC
	if bytes.Equal(mac, make(net.HardwareAddr, 6)) {
		mac = netlink.RandomMAC()
	}
	// A bridge that never had a port has no ID yet, and with a MAC of its own
	// it gets one by a change of that only: without one its ports stay dead.
	steps := []net.HardwareAddr{mac}
	if !bytes.Equal(d.IDMAC, d.MAC) {
		steps = []net.HardwareAddr{netlink.RandomMAC(), mac}
	}
	for _, m := range steps {
		if err := h.conn.SetLink(d.Index, 0, 0, netlink.Attr(unix.IFLA_ADDRESS, m)); err != nil {
			return fmt.Errorf("pin MAC %s: %w", mac, err)
		}
	}
	d.MAC, d.IDMAC = mac, mac
	return nil
}

// macIsSet says that a program set the link's MAC (NET_ADDR_SET): only sysfs
// tells, where it is of this namespace. To set a MAC once more makes the kernel
// forget all neighbours there.
func macIsSet(d *netlink.Device) bool {
	const set = "3"
	read := func(name string) string {
		path := "/sys/class/net/" + d.Name + "/" + name
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return ""
		}
		defer func() { _ = unix.Close(fd) }()
		text, _ := host.ReadSysctl(fd, path)
		return text
	}
	return read("ifindex") == strconv.Itoa(d.Index) && read("address") == d.MAC.String() && read("addr_assign_type") == set
}

// isolate keeps the host out of a bridge, before it comes up, or lets it in
// again.
func (h *Links) isolate(d *netlink.Device, b Bridge, created bool, u *netlink.Undo) error {
	if !b.Isolated {
		return h.readmit(d, b, u)
	}
	if !created {
		if err := h.dropGateways(d, b, u); err != nil {
			return err
		}
		if d.V6.Known && !d.V6.Disabled {
			if err := h.setBack(d, host.Sysctl{Key: "disable_ipv6", Value: "1"}, "0", u); err != nil {
				return err
			}
		}
	}
	var set, back []netlink.Setting
	if d.V4.ArpIgnore != arpIgnoreAll {
		set, back = append(set, netlink.Setting{Number: netlink.IPv4ArpIgnore, Value: arpIgnoreAll}), append(back, netlink.Setting{Number: netlink.IPv4ArpIgnore, Value: d.V4.ArpIgnore})
	}
	if d.V4.RPFilter == 0 {
		set, back = append(set, netlink.Setting{Number: netlink.IPv4RPFilter, Value: rpFilterStrict}), append(back, netlink.Setting{Number: netlink.IPv4RPFilter, Value: d.V4.RPFilter})
	}
	return h.setSettings(d, set, back, u)
}

// setSettings changes IPv4 settings of a link and pushes how to put them back.
func (h *Links) setSettings(d *netlink.Device, set, back []netlink.Setting, u *netlink.Undo) error {
	if len(set) == 0 {
		return nil
	}
	if err := h.conn.SetLink(d.Index, 0, 0, netlink.SetIPv4(set...)); err != nil {
		return fmt.Errorf("IPv4 settings of %s: %w", d.Name, err)
	}
	u.Push(func() error { return h.conn.SetLink(d.Index, 0, 0, netlink.SetIPv4(back...)) })
	return nil
}

// dropGateways removes the gateways that a bridge, now isolated, has from a
// time when it was not. Any other address means that the host, or another
// network, takes part in this bridge.
func (h *Links) dropGateways(d *netlink.Device, b Bridge, u *netlink.Undo) error {
	have, err := h.conn.Addrs(d.Index, unix.AF_UNSPEC)
	if err != nil {
		return err
	}
	var own []netip.Prefix
	have = slices.DeleteFunc(have, func(a netlink.Address) bool { // what goes with IPv6
		return a.Prefix.Addr().Is6() && a.Prefix.Addr().IsLinkLocalUnicast() && a.Protocol != netlink.ProtoLibnet
	})
	for _, a := range have {
		own = append(own, a.Prefix)
	}
	if len(own) == 0 {
		return nil
	}
	needed, err := b.needed(own)
	if err != nil {
		return err
	}
	for _, a := range have {
		if !b.ours(d) || a.Protocol != netlink.ProtoLibnet || slices.Contains(needed, a.Prefix) {
			return fmt.Errorf("%w: an isolated network's bridge has no address, and %s has %s: use another bridge", ErrAddressConflict, d.Name, a.Prefix)
		}
		if err := h.removeGateway(d.Index, a.Prefix, u); err != nil {
			return err
		}
	}
	return nil
}

// readmit takes back what isolate did, for a network with a gateway. Containers
// that are on the bridge were promised that the host is not.
func (h *Links) readmit(d *netlink.Device, b Bridge, u *netlink.Undo) error {
	if len(b.Gateways) == 0 || b.VLAN > 0 || !b.ours(d) || d.V4.ArpIgnore != arpIgnoreAll {
		return nil
	}
	ports, err := h.conn.Devices(d.Index)
	if err != nil {
		return err
	}
	if len(ports) > 0 {
		return fmt.Errorf("%w: %s is the bridge of an isolated network with containers, so it cannot have address %s: use another bridge",
			ErrAddressConflict, d.Name, b.Gateways[0])
	}
	filter := 0
	if s, err := h.host.Sysctls.Get("net/ipv4/conf/default/rp_filter"); err == nil {
		filter, _ = strconv.Atoi(s)
	}
	return h.setSettings(d,
		[]netlink.Setting{{Number: netlink.IPv4ArpIgnore, Value: 0}, {Number: netlink.IPv4RPFilter, Value: filter}},
		[]netlink.Setting{{Number: netlink.IPv4ArpIgnore, Value: d.V4.ArpIgnore}, {Number: netlink.IPv4RPFilter, Value: d.V4.RPFilter}}, u)
}

// forwardBy lets a link forward. It inherits that from "default", which an
// administrator may have switched off again after the host's was switched on.
func (h *Links) forwardBy(d *netlink.Device, b Bridge, u *netlink.Undo) error {
	if b.ForwardIPv4 && d.V4.Forwarding == 0 {
		if err := h.setSettings(d, []netlink.Setting{{Number: netlink.IPv4Forwarding, Value: 1}}, []netlink.Setting{{Number: netlink.IPv4Forwarding, Value: 0}}, u); err != nil {
			return err
		}
	}
	if !b.ForwardIPv6 || d.V6.Forwarding != 0 {
		return nil
	}
	// Forward sets it with the host's. Before, it would only change the order
	// of what the kernel does then: each subnet of a link that forwards has an
	// anycast address, which may be a unicast one of another link.
	if on, err := h.host.Sysctls.Get(host.ForwardV6); err != nil || on != "1" {
		return host.NoIPv6(err)
	}
	return h.setBack(d, host.Sysctl{Key: "forwarding", Value: "1"}, "0", u)
}

// verifyHostSide is what VerifyBridge says of the bridge's relation to its host.
// d is the interface that has the gateways, or would have them.
func (h *Links) verifyHostSide(d *netlink.Device, b Bridge, out *netlink.Diff) {
	if b.ForwardIPv4 && d.V4.Forwarding == 0 {
		out.Add("%s does not forward IPv4: sysctl %s is 0, want 1", d.Name, host.SysctlName("net/ipv4/conf/"+d.Name+"/forwarding"))
	}
	if b.ForwardIPv4 || b.ForwardIPv6 {
		v4, v6, err := h.host.Forwarding()
		if err != nil {
			*out = append(*out, err)
			return
		}
		if b.ForwardIPv4 && !v4 {
			out.Add("sysctl net.ipv4.ip_forward is 0, want 1")
		}
		if b.ForwardIPv6 && !v6 {
			out.Add("sysctl net.ipv6.conf.all.forwarding is 0, want 1")
		}
	}
	for _, s := range b.Subnets {
		switch has, err := hasSubnet(h.conn, d.Index, s); {
		case err != nil:
			out.Add("%s: %w", d.Name, err)
		case !has:
			out.Add("%s: route to %s is missing", d.Name, s)
		}
	}
}

// verifySettings is what VerifyBridge says of the settings of the bridge itself.
func (h *Links) verifySettings(d *netlink.Device, b Bridge, out *netlink.Diff) {
	name := func(key string) string { return host.SysctlName("net/ipv4/conf/" + d.Name + "/" + key) }
	if b.RouteLocalnet && d.V4.RouteLocalnet == 0 {
		out.Add("sysctl %s is 0, want 1: ports on 127.0.0.1 do not answer", name("route_localnet"))
	}
	if b.Isolated {
		if d.V4.ArpIgnore != arpIgnoreAll {
			out.Add("sysctl %s is %d, want %d: an isolated bridge answers no ARP", name("arp_ignore"), d.V4.ArpIgnore, arpIgnoreAll)
		}
		if d.V4.RPFilter == 0 {
			out.Add("sysctl %s is %d, want %d: an isolated bridge takes no IPv4", name("rp_filter"), d.V4.RPFilter, rpFilterStrict)
		}
		as, err := h.conn.Addrs(d.Index, unix.AF_UNSPEC)
		if err != nil {
			out.Add("%s: %w", d.Name, err)
		}
		for _, a := range as {
			out.Add("%s is isolated and has address %s", d.Name, a.Prefix)
		}
	}
	off, err := h.shouldBeOff(d, b)
	switch {
	case err != nil:
		out.Add("%s: %w", d.Name, err)
	case off || b.Isolated && d.V6.Known && !d.V6.Disabled:
		out.Add("sysctl %s is 0, want 1", host.SysctlName(host.IPv6Conf(d.Name, "disable_ipv6")))
	case b.ours(d) && d.V6.Known && !d.V6.Disabled && d.V6.AcceptRA != 0 && (d.V6.AcceptRA == 2 || d.V6.Forwarding == 0):
		out.Add("sysctl %s is %d, want 0: a container could re-route the host", host.SysctlName(host.IPv6Conf(d.Name, "accept_ra")), d.V6.AcceptRA)
	}
}
