package kernel

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// What a bridge is to its host: who it may talk to, and what it forwards.

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
func (h *Links) takeOver(d *device, b Bridge, u *undo) error {
	if !b.ours(d) {
		return h.pinMAC(d)
	}
	if b.Isolated || !d.v6.known || d.v6.disabled {
		return nil
	}
	off, err := h.shouldBeOff(d, b)
	if err != nil {
		return err
	}
	switch {
	case off:
		return h.setBack(d, sysctl{"disable_ipv6", "1"}, "0", u)
	case d.v6.acceptRA != 0:
		return h.setBack(d, sysctl{"accept_ra", "0"}, strconv.Itoa(d.v6.acceptRA), u)
	}
	return nil
}

// shouldBeOff says that IPv6 is on, on a bridge that was made without it, and
// that no other network on it has an IPv6 gateway there.
func (h *Links) shouldBeOff(d *device, b Bridge) (bool, error) {
	if b.IPv6 != IPv6Off || b.Alias == "" || d.alias != b.Alias || !d.v6.known || d.v6.disabled {
		return false, nil
	}
	have, err := h.conn.addrs(d.index, unix.AF_INET6)
	return err == nil && len(given(have)) == 0, err
}

// setBack sets an IPv6 setting of a link and pushes how to put it back.
func (h *Links) setBack(d *device, s sysctl, before string, u *undo) error {
	if _, err := setIPv6(d.name, true, s); err != nil {
		return err
	}
	u.push(func() error {
		_, err := setIPv6(d.name, false, sysctl{s.key, before})
		return err
	})
	return nil
}

// pinMAC makes the MAC of a bridge its own. One that has none of its own takes
// the lowest of its ports', and loses it with that port: neighbours would send
// to a MAC that is gone. A bridge without a port may have none at all.
func (h *Links) pinMAC(d *device) error {
	if macIsSet(d) {
		return nil
	}
	ports, err := h.conn.devices(d.index)
	if err != nil {
		return err
	}
	if len(ports) > 0 && !slices.ContainsFunc(ports, func(p *device) bool { return bytes.Equal(p.mac, d.mac) }) {
		return nil // it is no port's, so it is its own
	}
	mac := d.mac
	if bytes.Equal(mac, make(net.HardwareAddr, 6)) {
		mac = randomMAC()
	}
	// A bridge that never had a port has no ID yet, and with a MAC of its own
	// it gets one by a change of that only: without one its ports stay dead.
	steps := []net.HardwareAddr{mac}
	if !bytes.Equal(d.idMAC, d.mac) {
		steps = []net.HardwareAddr{randomMAC(), mac}
	}
	for _, m := range steps {
		if err := h.conn.setLink(d.index, 0, 0, attr(unix.IFLA_ADDRESS, m)); err != nil {
			return fmt.Errorf("pin MAC %s: %w", mac, err)
		}
	}
	d.mac, d.idMAC = mac, mac
	return nil
}

// macIsSet says that somebody gave the link its MAC (NET_ADDR_SET): only sysfs
// tells, where it is of this namespace. To set a MAC once more makes the kernel
// forget all neighbours there.
func macIsSet(d *device) bool {
	const set = "3"
	read := func(name string) string {
		path := "/sys/class/net/" + d.name + "/" + name
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return ""
		}
		defer func() { _ = unix.Close(fd) }()
		text, _ := readSysctl(fd, path)
		return text
	}
	return read("ifindex") == strconv.Itoa(d.index) && read("address") == d.mac.String() && read("addr_assign_type") == set
}

// isolate keeps the host out of a bridge, before it comes up, or lets it in
// again.
func (h *Links) isolate(d *device, b Bridge, created bool, u *undo) error {
	if !b.Isolated {
		return h.readmit(d, b, u)
	}
	if !created {
		if err := h.dropGateways(d, b, u); err != nil {
			return err
		}
		if d.v6.known && !d.v6.disabled {
			if err := h.setBack(d, sysctl{"disable_ipv6", "1"}, "0", u); err != nil {
				return err
			}
		}
	}
	var set, back []setting
	if d.v4.arpIgnore != arpIgnoreAll {
		set, back = append(set, setting{ipv4ArpIgnore, arpIgnoreAll}), append(back, setting{ipv4ArpIgnore, d.v4.arpIgnore})
	}
	if d.v4.rpFilter == 0 {
		set, back = append(set, setting{ipv4RPFilter, rpFilterStrict}), append(back, setting{ipv4RPFilter, d.v4.rpFilter})
	}
	return h.setSettings(d, set, back, u)
}

// setSettings changes IPv4 settings of a link and pushes how to put them back.
func (h *Links) setSettings(d *device, set, back []setting, u *undo) error {
	if len(set) == 0 {
		return nil
	}
	if err := h.conn.setLink(d.index, 0, 0, setIPv4(set...)); err != nil {
		return fmt.Errorf("IPv4 settings of %s: %w", d.name, err)
	}
	u.push(func() error { return h.conn.setLink(d.index, 0, 0, setIPv4(back...)) })
	return nil
}

// dropGateways removes the gateways that a bridge, now isolated, has from a
// time when it was not. Any other address means that the host, or another
// network, takes part in this bridge.
func (h *Links) dropGateways(d *device, b Bridge, u *undo) error {
	have, err := h.conn.addrs(d.index, unix.AF_UNSPEC)
	if err != nil {
		return err
	}
	var own []netip.Prefix
	have = slices.DeleteFunc(have, func(a address) bool { // what goes with IPv6
		return a.prefix.Addr().Is6() && a.prefix.Addr().IsLinkLocalUnicast() && a.protocol != protoLibnet
	})
	for _, a := range have {
		own = append(own, a.prefix)
	}
	if len(own) == 0 {
		return nil
	}
	needed, err := b.needed(own)
	if err != nil {
		return err
	}
	for _, a := range have {
		if !b.ours(d) || a.protocol != protoLibnet || slices.Contains(needed, a.prefix) {
			return fmt.Errorf("%w: an isolated network's bridge has no address, and %s has %s: use another bridge", ErrAddressConflict, d.name, a.prefix)
		}
		if err := h.removeGateway(d.index, a.prefix, u); err != nil {
			return err
		}
	}
	return nil
}

// readmit takes back what isolate did, for a network with a gateway. Containers
// that are on the bridge were promised that the host is not.
func (h *Links) readmit(d *device, b Bridge, u *undo) error {
	if len(b.Gateways) == 0 || b.VLAN > 0 || !b.ours(d) || d.v4.arpIgnore != arpIgnoreAll {
		return nil
	}
	ports, err := h.conn.devices(d.index)
	if err != nil {
		return err
	}
	if len(ports) > 0 {
		return fmt.Errorf("%w: %s is the bridge of an isolated network with containers, so it cannot have address %s: use another bridge",
			ErrAddressConflict, d.name, b.Gateways[0])
	}
	filter := 0
	if s, err := getSysctl("net/ipv4/conf/default/rp_filter"); err == nil {
		filter, _ = strconv.Atoi(s)
	}
	return h.setSettings(d,
		[]setting{{ipv4ArpIgnore, 0}, {ipv4RPFilter, filter}},
		[]setting{{ipv4ArpIgnore, d.v4.arpIgnore}, {ipv4RPFilter, d.v4.rpFilter}}, u)
}

// forwardBy lets a link forward. It inherits that from "default", which an
// administrator may have switched off again after the host's was switched on.
func (h *Links) forwardBy(d *device, b Bridge, u *undo) error {
	if b.ForwardIPv4 && d.v4.forwarding == 0 {
		if err := h.setSettings(d, []setting{{ipv4Forwarding, 1}}, []setting{{ipv4Forwarding, 0}}, u); err != nil {
			return err
		}
	}
	if !b.ForwardIPv6 || d.v6.forwarding != 0 {
		return nil
	}
	// Forward sets it with the host's. Before, it would only change the order
	// of what the kernel does then: each subnet of a link that forwards has an
	// anycast address, which may be a unicast one of another link.
	if on, err := getSysctl(forwardV6); err != nil || on != "1" {
		return noIPv6(err)
	}
	return h.setBack(d, sysctl{"forwarding", "1"}, "0", u)
}

// verifyHostSide is what VerifyBridge says of the bridge's relation to its host.
// d is the interface that has the gateways, or would have them.
func (h *Links) verifyHostSide(d *device, b Bridge, out *diff) {
	if b.ForwardIPv4 && d.v4.forwarding == 0 {
		out.add("%s does not forward IPv4: sysctl %s is 0, want 1", d.name, sysctlName("net/ipv4/conf/"+d.name+"/forwarding"))
	}
	if b.ForwardIPv4 || b.ForwardIPv6 {
		v4, v6, err := h.host.Forwarding()
		if err != nil {
			*out = append(*out, err)
			return
		}
		if b.ForwardIPv4 && !v4 {
			out.add("sysctl net.ipv4.ip_forward is 0, want 1")
		}
		if b.ForwardIPv6 && !v6 {
			out.add("sysctl net.ipv6.conf.all.forwarding is 0, want 1")
		}
	}
	for _, s := range b.Subnets {
		switch has, err := hasSubnet(h.conn, d.index, s); {
		case err != nil:
			out.add("%s: %w", d.name, err)
		case !has:
			out.add("%s: route to %s is missing", d.name, s)
		}
	}
}

// verifySettings is what VerifyBridge says of the settings of the bridge itself.
func (h *Links) verifySettings(d *device, b Bridge, out *diff) {
	name := func(key string) string { return sysctlName("net/ipv4/conf/" + d.name + "/" + key) }
	if b.RouteLocalnet && d.v4.routeLocalnet == 0 {
		out.add("sysctl %s is 0, want 1: ports on 127.0.0.1 do not answer", name("route_localnet"))
	}
	if b.Isolated {
		if d.v4.arpIgnore != arpIgnoreAll {
			out.add("sysctl %s is %d, want %d: an isolated bridge answers no ARP", name("arp_ignore"), d.v4.arpIgnore, arpIgnoreAll)
		}
		if d.v4.rpFilter == 0 {
			out.add("sysctl %s is %d, want %d: an isolated bridge takes no IPv4", name("rp_filter"), d.v4.rpFilter, rpFilterStrict)
		}
		as, err := h.conn.addrs(d.index, unix.AF_UNSPEC)
		if err != nil {
			out.add("%s: %w", d.name, err)
		}
		for _, a := range as {
			out.add("%s is isolated and has address %s", d.name, a.prefix)
		}
	}
	off, err := h.shouldBeOff(d, b)
	switch {
	case err != nil:
		out.add("%s: %w", d.name, err)
	case off || b.Isolated && d.v6.known && !d.v6.disabled:
		out.add("sysctl %s is 0, want 1", sysctlName(ipv6Conf(d.name, "disable_ipv6")))
	case b.ours(d) && d.v6.known && !d.v6.disabled && d.v6.acceptRA != 0 && (d.v6.acceptRA == 2 || d.v6.forwarding == 0):
		out.add("sysctl %s is %d, want 0: a container could re-route the host", sysctlName(ipv6Conf(d.name, "accept_ra")), d.v6.acceptRA)
	}
}
