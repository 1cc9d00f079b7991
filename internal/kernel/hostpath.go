package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// How the host's own packets get to the containers of a bridge: the route that the
// kernel makes with each address of the bridge, what comes before that route, and the
// neighbour table.

// leadsBy says whether the host's packets to a leave by the interface, with no router
// in between. One lookup costs as much on a host with a million routes.
func leadsBy(c *conn, index int, a netip.Addr) bool {
	oif := 0
	if a.IsLinkLocalUnicast() && a.Is6() {
		oif = index // each interface has this subnet
	}
	r, err := c.routeTo(a, oif)
	return err == nil && r.oif == index && !r.gateway.IsValid()
}

// probe returns an address of the subnet that is neither p's own, nor a broadcast one;
// false: the kernel makes no route with p.
func probe(p netip.Prefix) (netip.Addr, bool) {
	if p.IsSingleIP() {
		return netip.Addr{}, false
	}
	a := p.Addr().Next()
	last := !p.Contains(a.Next()) && p.Bits() < p.Addr().BitLen()-1
	if !p.Contains(a) || last {
		a = p.Addr().Prev()
	}
	return a, p.Contains(a)
}

// lacksConnected says that the route is gone that the kernel made with address p of the
// link. A route in another table to which a rule leads is as good.
func lacksConnected(c *conn, d *device, p netip.Prefix) (bool, error) {
	a, has := probe(p)
	if !has || d.master != 0 || leadsBy(c, d.index, a) { // a VRF has them in a table of its own
		return false, nil
	}
	has, err := hasSubnet(c, d.index, p.Masked())
	return !has, err
}

// ensureConnected makes the routes again that the kernel made with the wanted addresses
// of the link, and with those that libnet gave it for others. It makes them as the
// kernel does, which takes them away with the address.
func ensureConnected(c *conn, d *device, have []address, want []netip.Prefix) error {
	for _, a := range have {
		if a.protocol != protoLibnet && !slices.Contains(want, a.prefix) {
			continue
		}
		lacks, err := lacksConnected(c, d, a.prefix)
		if err != nil {
			return err
		}
		if !lacks {
			continue
		}
		if err := addConnected(c, d.index, a.prefix); err != nil {
			return err
		}
	}
	return nil
}

// ip6Connected is the metric of IPv6 routes that the kernel makes (IP6_RT_PRIO_ADDRCONF).
const ip6Connected = 256

func addConnected(c *conn, index int, p netip.Prefix) error {
	r := route{dst: p.Masked(), oif: index, table: unix.RT_TABLE_MAIN, protocol: unix.RTPROT_KERNEL}
	flags, metric := unix.NLM_F_CREATE, ip6Connected
	if p.Addr().Is4() {
		flags, metric, r.scope = flags|unix.NLM_F_EXCL, 0, unix.RT_SCOPE_LINK
	}
	req := r.message(unix.RTM_NEWROUTE, flags, metric)
	if p.Addr().Is4() {
		req.AddData(attr(unix.RTA_PREFSRC, p.Addr().AsSlice()))
	}
	if err := c.change(req); err != nil && !errors.Is(err, ErrExists) {
		return fmt.Errorf("add route %s: %w", r.dst, err)
	}
	return nil
}

// verifyPaths is what VerifyBridge says of how the host leads to b's subnets and
// addresses. d is the interface with the gateways, and have its addresses. It costs a
// request for each address of b.Reach, and one for each gateway in whose subnet is none.
func (h *Links) verifyPaths(d *device, have []address, b Bridge, out *diff) {
	if d.master != 0 || !d.up() {
		return
	}
	var good, astray []netip.Addr
	for _, a := range b.Reach {
		if leadsBy(h.conn, d.index, a) {
			good = append(good, a)
		} else {
			astray = append(astray, a)
		}
	}
	for _, a := range have {
		wanted := slices.Contains(b.Gateways, a.prefix) || b.AllRoutes && a.protocol == protoLibnet
		if !wanted || slices.ContainsFunc(good, a.prefix.Contains) {
			continue
		}
		switch lacks, err := lacksConnected(h.conn, d, a.prefix); {
		case err != nil:
			out.failed(d.name, err)
		case lacks:
			out.advise("lnctl repair puts it back; so do STATUS and the next ADD", "%s: route to %s is missing", d.name, a.prefix.Masked())
			astray = slices.DeleteFunc(astray, a.prefix.Contains)
		}
	}
	for _, s := range b.Subnets { // verifyHostSide tells of these
		if has, err := hasSubnet(h.conn, d.index, s); err != nil || !has {
			astray = slices.DeleteFunc(astray, s.Contains)
		}
	}
	for _, a := range astray {
		out.advise(fmt.Sprintf("look at ip route get %s, ip rule and ip route, and delete what leads elsewhere or drops", a),
			"packets of the host to %s do not leave by %s: %s", a, d.name, h.whither(a))
	}
}

// whither says in words where the kernel leads to an address instead.
func (h *Links) whither(a netip.Addr) string {
	r, err := h.conn.routeTo(a, 0)
	switch {
	case errors.Is(err, ErrNotFound) || unreachable(err):
		return "a rule or a route drops them"
	case err != nil:
		return err.Error()
	}
	by := fmt.Sprintf("interface %d", r.oif)
	if d, err := h.conn.deviceByIndex(r.oif); err == nil {
		by = d.name
	}
	return fmt.Sprintf("route %s leads by %s", r.dst, by)
}

// verifyNeighbours compares the permanent entries that the host's neighbour table has of
// the container's addresses with its MAC; what the kernel learned it mends itself.
func (h *Links) verifyNeighbours(l Link, bridge int, mac net.HardwareAddr, out *diff) {
	dev, index := l.Bridge, bridge
	if l.VLAN > 0 {
		dev = (&Bridge{Name: l.Bridge, VLAN: l.VLAN}).vlanName()
		d, err := h.conn.device(dev)
		if err != nil {
			return // a VLAN without a gateway has none
		}
		index = d.index
	}
	for _, p := range l.Addrs {
		state, held, err := neighbour(h.conn, index, p.Addr())
		switch {
		case err != nil:
			out.failed(fmt.Sprintf("%s: neighbour %s", dev, p.Addr()), err)
		case state&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0 && !bytes.Equal(held, mac):
			out.advise(fmt.Sprintf("ip neigh del %s dev %s", p.Addr(), dev), "%s: the permanent neighbour entry of %s has MAC %s, and the container has %s", dev, p.Addr(), held, mac)
		}
	}
}

// neighbour returns state and MAC of one entry of the neighbour table; zero if there
// is none, and before Linux 5.0, which cannot be asked for one.
func neighbour(c *conn, index int, a netip.Addr) (state uint16, mac net.HardwareAddr, err error) {
	b, err := c.get(request(unix.RTM_GETNEIGH, 0, ndmsg{family: uint8(family(a)), index: index}, attr(unix.NDA_DST, a.AsSlice())), unix.RTM_NEWNEIGH)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnsupported) {
		return 0, nil, nil
	}
	if err != nil || len(b) < ndmsgSize {
		return 0, nil, err
	}
	err = eachAttr(b[ndmsgSize:], func(typ uint16, v []byte) error {
		if typ == unix.NDA_LLADDR {
			mac = slices.Clone(v)
		}
		return nil
	})
	return binary.NativeEndian.Uint16(b[8:]), mac, err
}

// verifyPort compares the state of a bridge port whose link has a carrier: the bridge
// itself disables only those that have none.
func verifyPort(at string, d, br *device, out *diff) {
	if d.up() && d.flags&unix.IFF_LOWER_UP != 0 && d.port && d.portState == portDisabled {
		out.advise(fmt.Sprintf("bridge link set dev %s state %d", d.name, portForwarding), "%s: the port of %s is disabled", at, br.name)
	}
}
