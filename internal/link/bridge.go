package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// Bridge is a wanted Linux bridge.
type Bridge struct {
	// Name of the bridge, 1 to 15 bytes.
	Name string
	// MTU in bytes; 0 leaves the kernel's default, or what an existing bridge has.
	MTU int
	// MAC is given to the bridge if it has another one; nil: a new bridge gets a
	// random one, an existing one keeps its own.
	MAC net.HardwareAddr
	// Gateways are the addresses the bridge must hold, host bits included.
	Gateways []netip.Prefix
	// ForceAddress replaces gateways that EnsureBridge gave the bridge before
	// and that exclude a wanted one. Addresses that it did not give are never
	// removed: they are ErrAddressConflict.
	ForceAddress bool
	// Needed returns which of these addresses of the bridge other attachments
	// need, or may need: they and the wanted ones do not exclude each other. It
	// is called when an address is in the way; nil: none is needed.
	Needed func(inTheWay []netip.Prefix) ([]netip.Prefix, error)
	// Subnets are those without a gateway among their own addresses: the host
	// gets a route to each by the interface that has the Gateways.
	Subnets []netip.Prefix
	// Reach are addresses that VerifyBridge wants the host's packets to get to by the
	// interface that has the Gateways. AllRoutes has it look at the routes to all
	// subnets that libnet gave that interface an address in, not only the Gateways'.
	Reach     []netip.Addr
	AllRoutes bool
	// ForwardIPv4 and ForwardIPv6 let the interface with the Gateways forward,
	// which can be off while the host's forwarding is on.
	ForwardIPv4, ForwardIPv6 bool
	// Isolated keeps the host out: the bridge has no address and no IPv6, does
	// not answer ARP, and hands IPv4 packets to nothing on the host.
	Isolated bool
	// RouteLocalnet is what VerifyBridge wants to be on. SetRouteLocalnet
	// switches it on, once 127.0.0.0/8 is guarded.
	RouteLocalnet bool
	// Named puts a bridge that is in no group of interfaces into GroupNamed; false
	// leaves it alone.
	Named bool
	// Promisc puts the bridge into promiscuous mode; false leaves it alone.
	Promisc bool
	// VLANFiltering needs CONFIG_BRIDGE_VLAN_FILTERING, else ErrUnsupported;
	// false leaves it alone. A VLAN implies it.
	VLANFiltering bool
	// VLAN above 0 puts the Gateways on an interface "<Name>.<VLAN>": as in the
	// reference bridge plugin a veth whose other end is a port in that VLAN.
	// It needs CONFIG_BRIDGE_VLAN_FILTERING, else ErrUnsupported.
	VLAN int
	// PreserveDefaultVLAN keeps VLAN 1 on the port of the VLAN interface.
	PreserveDefaultVLAN bool
	// IPv6 is applied to a bridge this call creates; IPv6On also to an existing one.
	IPv6 host.IPv6Mode
	// Alias marks a bridge this call creates as ours; "" sets none.
	Alias string
}

// BridgeState is a bridge as it was found or made.
type BridgeState struct {
	Index int
	MAC   net.HardwareAddr
	// MTU in bytes.
	MTU int
	// Created is true when this call made the bridge.
	Created bool
	// VLANName and VLANMAC describe the VLAN interface above the bridge; zero without one.
	VLANName string
	VLANMAC  net.HardwareAddr

	device *netlink.Device
}

func (b *Bridge) check() error {
	if err := netlink.CheckName("bridge", b.Name); err != nil {
		return err
	}
	if b.VLAN > 0 {
		if err := netlink.CheckName("VLAN interface", b.vlanName()); err != nil && len(b.Gateways) > 0 {
			return err
		}
		if err := checkVLAN(b.VLAN); err != nil {
			return err
		}
	}
	if b.Isolated && len(b.Gateways) > 0 {
		return fmt.Errorf("address %s on an isolated bridge", b.Gateways[0])
	}
	return host.CheckAddrs(b.Gateways, b.IPv6)
}

// ours says that d is a bridge that EnsureBridge made, for whichever network.
func (b *Bridge) ours(d *netlink.Device) bool {
	prefix, _, ok := strings.Cut(b.Alias, ":")
	return ok && strings.HasPrefix(d.Alias, prefix+":") || unfinished(d)
}

// needsIPv6 says that the device holding the gateways must speak IPv6.
func (b *Bridge) needsIPv6() bool { return b.IPv6 == host.IPv6On || netlink.HasIPv6(b.Gateways) }

// EnsureBridge creates the bridge or brings an existing one to what is asked.
// On failure what this call made is undone. The error wraps ErrNotBridge when
// the name belongs to a link of another kind, ErrAddressConflict, or
// ErrUnsupported.
func (h *Links) EnsureBridge(ctx context.Context, b Bridge) (st BridgeState, err error) {
	if err := errors.Join(ctx.Err(), b.check()); err != nil {
		return BridgeState{}, err
	}
	b.VLANFiltering = b.VLANFiltering || b.VLAN > 0
	if b.Isolated {
		b.IPv6 = host.IPv6Off
	}
	var u netlink.Undo
	defer func() {
		if err != nil {
			st, err = BridgeState{}, errors.Join(fmt.Errorf("bridge %s: %w", b.Name, err), u.Run())
		}
	}()
	d, err := bridge(h.conn, b.Name)
	created := errors.Is(err, netlink.ErrNotFound)
	if created {
		d, created, err = h.createBridge(b, &u)
	}
	if err == nil && (created || unfinished(d)) {
		err = h.host.Sysctls.OwnIPv6(b.Name, b.IPv6, b.needsIPv6() && b.VLAN == 0)
	}
	if err == nil && !created {
		err = h.takeOver(d, b, &u)
	}
	if err == nil {
		err = h.isolate(d, b, created, &u)
	}
	if err == nil {
		err = h.adjustBridge(d, b, created, &u)
	}
	if err != nil {
		return st, err
	}
	st = BridgeState{Index: d.Index, MAC: d.MAC, MTU: d.MTU, Created: created, device: d}
	holder, fresh := d, created
	if b.VLAN > 0 && len(b.Gateways) > 0 {
		if holder, fresh, err = h.ensureVLANDevice(d, b, &u); err != nil {
			return st, err
		}
		st.VLANName, st.VLANMAC = holder.Name, holder.MAC
	}
	if err := h.forwardBy(holder, b, &u); err != nil {
		return st, err
	}
	if err := h.ensureAddrs(holder, d, b, fresh, &u); err != nil {
		return st, err
	}
	return st, h.ensureSubnets(holder, b, fresh, &u)
}

// bridge reads the bridge called name; the error wraps ErrNotFound or ErrNotBridge.
func bridge(c *netlink.Conn, name string) (*netlink.Device, error) {
	d, err := c.Device(name)
	if err != nil {
		return nil, err
	}
	if d.Kind != "bridge" {
		kind := d.Kind
		if kind == "" {
			kind = "physical or built-in"
		}
		return nil, fmt.Errorf("%w: it is a %s link", ErrNotBridge, kind)
	}
	return d, nil
}

// groupNew is the group of a bridge that we are making: the kernel takes no
// alias in the message that creates a link. One that has it and no alias was
// left by a process that was killed in between.
const groupNew = 0x6c6e

// GroupNamed is the group (IFLA_GROUP) of bridges whose containers have names: the
// agent's rules see a query of the first container by it, before the agent has heard
// of the network.
const GroupNamed = groupNew + 1

// group is that of a bridge of ours.
func (b *Bridge) group() uint32 {
	if b.Named {
		return GroupNamed
	}
	return 0
}

func unfinished(d *netlink.Device) bool { return d.Group == groupNew && d.Alias == "" }

// createBridge makes the bridge, down. It reports false when another process
// made it first.
func (h *Links) createBridge(b Bridge, u *netlink.Undo) (*netlink.Device, bool, error) {
	data := netlink.Nest(nl.IFLA_INFO_DATA)
	if b.VLANFiltering {
		data.AddChild(netlink.AttrBool(nl.IFLA_BR_VLAN_FILTERING, true))
	}
	err := h.conn.Change(netlink.Request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		nl.NewIfInfomsg(unix.AF_UNSPEC),
		netlink.AttrString(unix.IFLA_IFNAME, b.Name),
		netlink.Attr(unix.IFLA_ADDRESS, netlink.RandomMAC()),
		netlink.AttrUint32(unix.IFLA_GROUP, groupNew),
		netlink.Nest(unix.IFLA_LINKINFO, netlink.Attr(nl.IFLA_INFO_KIND, []byte("bridge")), data)))
	created := err == nil
	if created {
		u.Push(func() error { return h.conn.DeleteLinkByName(b.Name) })
	} else if !errors.Is(err, netlink.ErrExists) {
		if b.VLANFiltering && errors.Is(err, netlink.ErrUnsupported) {
			return nil, false, noVLANs()
		}
		return nil, false, fmt.Errorf("create: %w", err)
	}
	d, err := bridge(h.conn, b.Name)
	return d, created, err
}

// adjustBridge brings up the bridge and sets what differs, in one message, and
// keeps d true.
func (h *Links) adjustBridge(d *netlink.Device, b Bridge, created bool, u *netlink.Undo) error {
	if !created && b.needsIPv6() && b.VLAN == 0 {
		if _, err := h.host.Sysctls.SetIPv6(d.Name, true, host.Sysctl{Key: "disable_ipv6", Value: "0"}); err != nil {
			return err
		}
	}
	want := d.Flags | unix.IFF_UP
	if b.Promisc {
		want |= unix.IFF_PROMISC
	}
	var set, back []*nl.RtAttr
	if created || unfinished(d) {
		set = append(set, netlink.Attr(unix.IFLA_IFALIAS, []byte(b.Alias)), netlink.AttrUint32(unix.IFLA_GROUP, b.group()))
		d.Alias, d.Group = b.Alias, int(b.group())
	}
	if b.Named && d.Group == 0 { // it stays if this is undone: a query is asked about in vain then, and no more
		set = append(set, netlink.AttrUint32(unix.IFLA_GROUP, GroupNamed))
		d.Group = GroupNamed
	}
	if b.MAC != nil && !bytes.Equal(b.MAC, d.MAC) {
		set = append(set, netlink.Attr(unix.IFLA_ADDRESS, b.MAC))
		back = append(back, netlink.Attr(unix.IFLA_ADDRESS, d.MAC))
		d.MAC = b.MAC
	}
	if b.MTU > 0 && b.MTU != d.MTU {
		// Not in the creating message: only a change makes the bridge keep
		// its MTU instead of following its ports.
		set = append(set, netlink.AttrUint32(unix.IFLA_MTU, uint32(b.MTU)))
		back = append(back, netlink.AttrUint32(unix.IFLA_MTU, uint32(d.MTU)))
		d.MTU = b.MTU
	}
	mask := want ^ d.Flags
	if mask != 0 || len(set) > 0 {
		if err := h.conn.SetLink(d.Index, want&mask, mask, set...); err != nil {
			return fmt.Errorf("set up, MTU %d: %w", d.MTU, err)
		}
		if !created {
			old := d.Flags
			u.Push(func() error { return h.conn.SetLink(d.Index, old&mask, mask, back...) })
		}
		d.Flags = want
	}
	if b.VLANFiltering && !d.VLANFiltering {
		return h.filterVLANs(d, created, u)
	}
	return nil
}

// ErrNotBridge: a link of the bridge's name is of another kind.
var ErrNotBridge error = &sentinel.Error{Text: "not a bridge"}

// ErrAddressConflict: the bridge holds an address that excludes the wanted one.
var ErrAddressConflict error = &sentinel.Error{Text: "address conflict"}

// ErrInUse: the bridge still has ports.
var ErrInUse error = &sentinel.Error{Text: "in use"}
