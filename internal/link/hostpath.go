package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
)

// How the host's own packets get to the containers of a bridge: the route that the
// kernel makes with each address of the bridge, what comes before that route, and the
// neighbour table.

// leadsBy says whether the host's packets to a leave by the interface, with no router
// in between. One lookup costs as much on a host with a million routes.
func leadsBy(c *netlink.Conn, index int, a netip.Addr) bool {
	oif := 0
	if a.IsLinkLocalUnicast() && a.Is6() {
		oif = index // each interface has this subnet
	}
	r, err := c.RouteTo(a, oif)
	return err == nil && r.OIF == index && !r.Gateway.IsValid()
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
func lacksConnected(c *netlink.Conn, d *netlink.Device, p netip.Prefix) (bool, error) {
	a, has := probe(p)
	if !has || d.Master != 0 || leadsBy(c, d.Index, a) { // a VRF has them in a table of its own
		return false, nil
	}
	has, err := hasSubnet(c, d.Index, p.Masked())
	return !has, err
}

// ensureConnected makes the routes again that the kernel made with the wanted addresses
// of the link, and with those that libnet gave it for others. It makes them as the
// kernel does, which takes them away with the address.
func ensureConnected(c *netlink.Conn, d *netlink.Device, have []netlink.Address, want []netip.Prefix) error {
	for _, a := range have {
		if a.Protocol != netlink.ProtoLibnet && !slices.Contains(want, a.Prefix) {
			continue
		}
		lacks, err := lacksConnected(c, d, a.Prefix)
		if err != nil {
			return err
		}
		if !lacks {
			continue
		}
		if err := addConnected(c, d.Index, a.Prefix); err != nil {
			return err
		}
	}
	return nil
}

// ip6Connected is the metric of IPv6 routes that the kernel makes (IP6_RT_PRIO_ADDRCONF).
const ip6Connected = 256

func addConnected(c *netlink.Conn, index int, p netip.Prefix) error {
	r := netlink.Route{Dst: p.Masked(), OIF: index, Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_KERNEL}
	flags, metric := unix.NLM_F_CREATE, ip6Connected
	if p.Addr().Is4() {
		flags, metric, r.Scope = flags|unix.NLM_F_EXCL, 0, unix.RT_SCOPE_LINK
	}
	req := r.Message(unix.RTM_NEWROUTE, flags, metric)
	if p.Addr().Is4() {
		req.AddData(netlink.Attr(unix.RTA_PREFSRC, p.Addr().AsSlice()))
	}
	if err := c.Change(req); err != nil && !errors.Is(err, netlink.ErrExists) {
		return fmt.Errorf("add route %s: %w", r.Dst, err)
	}
	return nil
}

// verifyPaths is what VerifyBridge says of how the host leads to b's subnets and
// addresses. d is the interface with the gateways, and have its addresses. It costs a
// request for each address of b.Reach, and one for each gateway in whose subnet is none.
func (h *Links) verifyPaths(d *netlink.Device, have []netlink.Address, b Bridge, out *netlink.Diff) {
	if d.Master != 0 || !d.Up() {
		return
	}
	var good, astray []netip.Addr
	for _, a := range b.Reach {
		if leadsBy(h.conn, d.Index, a) {
			good = append(good, a)
		} else {
			astray = append(astray, a)
		}
	}
	for _, a := range have {
		wanted := slices.Contains(b.Gateways, a.Prefix) || b.AllRoutes && a.Protocol == netlink.ProtoLibnet
		if !wanted || slices.ContainsFunc(good, a.Prefix.Contains) {
			continue
		}
		switch lacks, err := lacksConnected(h.conn, d, a.Prefix); {
		case err != nil:
			out.Failed(d.Name, err)
		case lacks:
			out.Advise("lnctl repair puts it back; so do STATUS and the next ADD", "%s: route to %s is missing", d.Name, a.Prefix.Masked())
			astray = slices.DeleteFunc(astray, a.Prefix.Contains)
		}
	}
	for _, s := range b.Subnets { // verifyHostSide tells of these
		if has, err := hasSubnet(h.conn, d.Index, s); err != nil || !has {
			astray = slices.DeleteFunc(astray, s.Contains)
		}
	}
	for _, a := range astray {
		out.Advise(fmt.Sprintf("look at ip route get %s, ip rule and ip route, and delete what leads elsewhere or drops", a),
			"packets of the host to %s do not leave by %s: %s", a, d.Name, h.whither(a))
	}
}

// whither says in words where the kernel leads to an address instead.
func (h *Links) whither(a netip.Addr) string {
	r, err := h.conn.RouteTo(a, 0)
	switch {
	case errors.Is(err, netlink.ErrNotFound) || host.Unreachable(err):
		return "a rule or a route drops them"
	case err != nil:
		return err.Error()
	}
	by := fmt.Sprintf("interface %d", r.OIF)
	if d, err := h.conn.DeviceByIndex(r.OIF); err == nil {
		by = d.Name
	}
	return fmt.Sprintf("route %s leads by %s", r.Dst, by)
}

// verifyNeighbours compares the permanent entries that the host's neighbour table has of
// the container's addresses with its MAC; what the kernel learned it mends itself.
func (h *Links) verifyNeighbours(l Link, bridge int, mac net.HardwareAddr, out *netlink.Diff) {
	dev, index := l.Bridge, bridge
	if l.VLAN > 0 {
		dev = (&Bridge{Name: l.Bridge, VLAN: l.VLAN}).vlanName()
		d, err := h.conn.Device(dev)
		if err != nil {
			return // a VLAN without a gateway has none
		}
		index = d.Index
	}
	for _, p := range l.Addrs {
		state, held, err := neighbour(h.conn, index, p.Addr())
		switch {
		case err != nil:
			out.Failed(fmt.Sprintf("%s: neighbour %s", dev, p.Addr()), err)
		case state&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0 && !bytes.Equal(held, mac):
			out.Advise(fmt.Sprintf("ip neigh del %s dev %s", p.Addr(), dev), "%s: the permanent neighbour entry of %s has MAC %s, and the container has %s", dev, p.Addr(), held, mac)
		}
	}
}

// neighbour returns state and MAC of one entry of the neighbour table; zero if there
// is none, and before Linux 5.0, which cannot be asked for one.
func neighbour(c *netlink.Conn, index int, a netip.Addr) (state uint16, mac net.HardwareAddr, err error) {
	b, err := c.Get(netlink.Request(unix.RTM_GETNEIGH, 0, netlink.Ndmsg{Family: uint8(netlink.Family(a)), Index: index}, netlink.Attr(unix.NDA_DST, a.AsSlice())), unix.RTM_NEWNEIGH)
	if errors.Is(err, netlink.ErrNotFound) || errors.Is(err, netlink.ErrUnsupported) {
		return 0, nil, nil
	}
	if err != nil || len(b) < netlink.NdmsgSize {
		return 0, nil, err
	}
	err = netlink.EachAttr(b[netlink.NdmsgSize:], func(typ uint16, v []byte) error {
		if typ == unix.NDA_LLADDR {
			mac = slices.Clone(v)
		}
		return nil
	})
	return binary.NativeEndian.Uint16(b[8:]), mac, err
}

// verifyPort compares the state of a bridge port whose link has a carrier: the bridge
// itself disables only those that have none.
func verifyPort(at string, d, br *netlink.Device, out *netlink.Diff) {
	if d.Up() && d.Flags&unix.IFF_LOWER_UP != 0 && d.Port && d.PortState == netlink.PortDisabled {
		out.Advise(fmt.Sprintf("bridge link set dev %s state %d", d.Name, netlink.PortForwarding), "%s: the port of %s is disabled", at, br.Name)
	}
}
