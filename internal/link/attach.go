package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/netns"
)

// VLANRange is a range of VLAN IDs, both ends included.
type VLANRange struct{ Min, Max uint16 }

// Link is one attachment: a veth pair of which one end is a bridge port and
// the other the container's interface.
type Link struct {
	// Owner becomes the alias of the host end, at most 255 bytes.
	Owner string
	// HostName is the name of the host end, 1 to 15 bytes.
	HostName string
	// Bridge is the name of the bridge whose port the host end becomes. State
	// is what EnsureBridge has just returned for it; zero: Attach looks.
	Bridge string
	State  BridgeState
	// Netns is the container's namespace and IfName the interface's name there.
	Netns  *netns.Namespace
	IfName string
	// MAC of the container's interface; nil: random, locally administered.
	MAC net.HardwareAddr
	// MTU of both ends in bytes; 0: the bridge's.
	MTU   int
	Addrs []netip.Prefix
	// Routes of a Priority of 0 get a metric by Precedence, so that those of
	// several attachments in one namespace do not stand in each other's way.
	Routes     []Route
	Precedence Precedence
	// Hairpin and Isolated are bridge port flags.
	Hairpin, Isolated bool
	// VLAN, above 0, is the port's untagged VLAN; Trunk are its tagged ones.
	// They need CONFIG_BRIDGE_VLAN_FILTERING, else ErrUnsupported.
	VLAN  int
	Trunk []VLANRange
	// PreserveDefaultVLAN keeps VLAN 1 on the port when VLAN or Trunk is set.
	PreserveDefaultVLAN bool
	// EnableDAD waits (at most 5 s) for IPv6 duplicate address detection; a
	// duplicate is an error. Without it addresses are set NODAD.
	EnableDAD bool
	// Down leaves the container's interface down and without addresses and routes.
	Down bool
	// IPv6 is for the container's interface.
	IPv6 host.IPv6Mode
	// Unknown says that Addrs had no owner before, and that none can be asked for
	// yet. On a bridge of the same maker they are not announced: each port gets a
	// copy of an announcement, 10 µs apiece.
	Unknown bool
}

func (l *Link) check() error {
	errs := []error{
		netlink.CheckName("host interface", l.HostName), netlink.CheckName("bridge", l.Bridge),
		netlink.CheckName("container interface", l.IfName), host.CheckAddrs(l.Addrs, l.IPv6), l.Precedence.check(),
	}
	if l.Netns == nil {
		errs = append(errs, errors.New("no network namespace"))
	}
	if len(l.Owner) > maxAlias {
		errs = append(errs, fmt.Errorf("owner is longer than %d bytes", maxAlias))
	}
	if l.MAC != nil && (len(l.MAC) != 6 || l.MAC[0]&1 != 0) {
		errs = append(errs, fmt.Errorf("MAC %s is not a unicast Ethernet address", l.MAC))
	}
	if l.VLAN != 0 {
		errs = append(errs, checkVLAN(l.VLAN))
	}
	for _, r := range l.Trunk {
		errs = append(errs, checkVLAN(int(r.Min)), checkVLAN(int(r.Max)))
		if r.Min > r.Max {
			errs = append(errs, fmt.Errorf("VLAN range %d-%d is backwards", r.Min, r.Max))
		}
	}
	for _, r := range l.Routes {
		errs = append(errs, r.check())
	}
	return errors.Join(errs...)
}

// Attached is what Attach made.
type Attached struct {
	// HostIndex and HostMAC are the host end's, Index and MAC the container's.
	HostIndex, Index int
	HostMAC, MAC     net.HardwareAddr
	// MTU of both ends in bytes.
	MTU int
}

// Attach makes the attachment, all or nothing. A pair that an earlier call
// with the same Owner left under the same names is replaced. The error wraps
// ErrExists when IfName or HostName is taken by something else, ErrNotFound
// when the bridge is missing, ErrNotBridge, ErrBridgeFull or ErrUnsupported.
func (h *Links) Attach(ctx context.Context, l Link) (Attached, error) {
	if err := errors.Join(ctx.Err(), l.check()); err != nil {
		return Attached{}, err
	}
	a, err := h.attach(ctx, l)
	if err != nil {
		return Attached{}, fmt.Errorf("attach %s to %s: %w", l.IfName, l.Bridge, err)
	}
	return a, nil
}

func (h *Links) attach(ctx context.Context, l Link) (a Attached, err error) {
	br := l.State.device
	if br == nil {
		if br, err = bridge(h.conn, l.Bridge); err != nil {
			return a, fmt.Errorf("bridge %s: %w", l.Bridge, err)
		}
	}
	if !br.Up() && !l.Down {
		return a, fmt.Errorf("bridge %s is down", l.Bridge)
	}
	p := pair{
		host: l.HostName, hostMAC: netlink.RandomMAC(), peer: l.IfName, peerMAC: l.MAC,
		peerNS: l.Netns.FD(), mtu: l.MTU, master: br.Index,
	}
	if p.peerMAC == nil {
		p.peerMAC = netlink.RandomMAC()
	}
	if p.mtu == 0 {
		p.mtu = br.MTU
	}
	host, err := h.createAttachment(p, l)
	if err != nil {
		return a, err
	}
	var u netlink.Undo
	u.Push(func() error { return h.conn.DeleteLinkByName(l.HostName) })
	defer func() {
		if err != nil {
			a, err = Attached{}, errors.Join(err, u.Run())
		}
	}()
	host, err = h.plug(br, host, port{
		name: l.HostName, alias: l.Owner, hairpin: l.Hairpin, isolated: l.Isolated,
		vlan: l.VLAN, trunk: l.Trunk, preserve: l.PreserveDefaultVLAN,
	})
	if err != nil {
		return a, err
	}
	a = Attached{HostIndex: host.Index, HostMAC: p.hostMAC, MAC: p.peerMAC, MTU: p.mtu}
	a.Index, err = h.configure(ctx, l, br, host, p.peerMAC)
	return a, err
}

// createAttachment makes the pair. When a name is taken it looks for what an
// earlier, killed call left, removes that and tries once more.
func (h *Links) createAttachment(p pair, l Link) (*netlink.Device, error) {
	host, err := createPair(h.conn, p)
	if errors.Is(err, netlink.ErrExists) {
		if err := h.removeLeftover(l); err != nil {
			return nil, err
		}
		host, err = createPair(h.conn, p)
	}
	if errors.Is(err, netlink.ErrBridgeFull) {
		return nil, fmt.Errorf("bridge %s has %w: a Linux bridge holds %d ports", l.Bridge, netlink.ErrBridgeFull, maxPorts)
	}
	if err != nil {
		return nil, fmt.Errorf("create veth %s: %w", l.HostName, err)
	}
	return host, nil
}

// removeLeftover removes the host link that is in the way if it is this very
// attachment: our alias, or none yet, and its other end is IfName in the
// container's namespace.
func (h *Links) removeLeftover(l Link) error {
	host, err := h.conn.Device(l.HostName)
	if errors.Is(err, netlink.ErrNotFound) {
		return fmt.Errorf("interface %s in %s: %w", l.IfName, l.Netns.Path(), netlink.ErrExists)
	}
	if err != nil {
		return err
	}
	if !ownedBy(host, l.Owner) {
		return fmt.Errorf("interface %s of another owner (%s, alias %q): %w", l.HostName, host.Kind, host.Alias, netlink.ErrExists)
	}
	cont, err := netlink.DeviceIn(l.Netns, l.IfName)
	if err != nil && !errors.Is(err, netlink.ErrNotFound) {
		return err
	}
	ours := false
	if err == nil {
		if ours, err = h.isPeer(host, cont, l.Netns); err != nil {
			return err
		}
	}
	if !ours {
		return fmt.Errorf("interface %s, of another attachment of the same owner: %w", l.HostName, netlink.ErrExists)
	}
	if err := h.conn.DeleteLink(host.Index); err != nil && !errors.Is(err, netlink.ErrNotFound) {
		return fmt.Errorf("remove leftover %s: %w", l.HostName, err)
	}
	return nil
}

// ownedBy says that the link is a veth with this alias, or with none as after
// a crash between creation and alias.
func ownedBy(d *netlink.Device, owner string) bool {
	return d.Kind == "veth" && (d.Alias == "" || d.Alias == owner)
}

// isPeer says that cont, in namespace n, is the other end of host. Indexes are
// per namespace, so the namespace must be compared as well.
func (h *Links) isPeer(host, cont *netlink.Device, n *netns.Namespace) (bool, error) {
	if host.Peer != cont.Index || cont.Peer != host.Index || cont.Kind != "veth" {
		return false, nil
	}
	id, err := h.conn.NSID(n)
	return err == nil && id == host.PeerNS && id >= 0, err
}
