package tunnel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/sentinel"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

// SecurePrefix starts the names of WireGuard devices: a device of that name is never a
// VXLAN device.
const SecurePrefix = "wg-"

// Secure is what a Tunnel has that encrypts: it is a WireGuard device then, whose peers
// stand in the place of neighbours and forwarding entries, and its routes have no gateway.
type Secure struct {
	// PrivateKey of this host; zero: what the device has is not looked at.
	PrivateKey wireguard.PrivateKey
	// PublicKey is the one by which the other hosts know this one; zero: not looked at.
	PublicKey wireguard.Key
	Peers     []wireguard.Peer
	// Nets are all that belongs to the network: what no route of the tunnel leads to is
	// unreachable.
	Nets []netip.Prefix
	// Socket is that of wireguard-go, in case it has the device.
	Socket string
	// Sister is the network's other WireGuard device, while both are in use: a route that
	// leads by it moves to this one without a packet lost. Empty: there is none.
	Sister string
	// Loose says that packets come in by this device from blocks whose route leads by another
	// one: peers change from one to the other each at its own time.
	Loose bool
	// Elsewhere are the blocks whose routes lead by Sister.
	Elsewhere []netip.Prefix
}

// ErrNoWireGuard: the kernel has no WireGuard, and no wireguard-go has the device.
var ErrNoWireGuard error = noWireGuard{}

// noWireGuard is a netlink.ErrUnsupported.
type noWireGuard struct{}

func (noWireGuard) Error() string { return netlink.ErrUnsupported.Error() + ": WireGuard" }
func (noWireGuard) Unwrap() error { return netlink.ErrUnsupported }

// ErrOtherKey: the private key is of another public key than the network's hosts know.
var ErrOtherKey error = &sentinel.Error{Text: "public key differs"}

// isSecure says that a device is of WireGuard: of the kernel, or of wireguard-go.
func isSecure(d *netlink.Device) bool { return d.Kind == "wireguard" || d.Kind == "tun" }

// device is d's WireGuard.
func (s *Secure) device(d *netlink.Device) wireguard.Device {
	if d.Kind == "tun" {
		return wireguard.Device{Name: d.Name, Socket: s.Socket}
	}
	return wireguard.Device{Name: d.Name}
}

// sister is the name of the network's other device of the same kind; empty: it has none.
func (t *Tunnel) sister() string {
	if t.Secure == nil {
		return ""
	}
	return t.Secure.Sister
}

// leadsElsewhere says that a route to a block of the network belongs to its other device.
func (t *Tunnel) leadsElsewhere(block netip.Prefix) bool {
	return t.Secure != nil && slices.Contains(t.Secure.Elsewhere, block)
}

// wanted is what the device has to have, of which have is known.
func (t *Tunnel) wanted(have wireguard.State) wireguard.State {
	want := wireguard.State{PrivateKey: t.Secure.PrivateKey, Port: t.Port, Peers: t.Secure.Peers}
	if want.PrivateKey == (wireguard.PrivateKey{}) {
		want.PrivateKey = have.PrivateKey
	}
	return want
}

// CanEncrypt is nil if the device is there, or the kernel has WireGuard, whose module it loads
// if need be; else ErrNoWireGuard.
func (h *Tunnels) CanEncrypt(device string) error {
	if d, err := h.conn.Device(device); err == nil && isSecure(d) {
		return nil
	}
	err := wireguard.Supported()
	if errors.Is(err, wireguard.ErrUnsupported) {
		return ErrNoWireGuard
	}
	return err
}

// SecureState is what the WireGuard device of a name has, be it of the kernel, or of the
// wireguard-go that answers at a socket. A missing one is ErrNotFound.
func (h *Tunnels) SecureState(name, socket string) (wireguard.State, error) {
	d, err := h.conn.Device(name)
	if err != nil {
		return wireguard.State{}, err
	}
	return (&Secure{Socket: socket}).device(d).Read()
}

// ChangeSecure changes such a device.
func (h *Tunnels) ChangeSecure(name, socket string, c wireguard.Change) error {
	d, err := h.conn.Device(name)
	if err != nil {
		return err
	}
	return (&Secure{Socket: socket}).device(d).Change(c)
}

// ensureSecure returns the device with its keys and peers. Before that what belongs to the
// network is unreachable but by it, and its other devices are gone. made and created are as
// those of ensureVXLAN.
func (h *Tunnels) ensureSecure(t Tunnel, u *netlink.Undo) (d *netlink.Device, made, created bool, err error) {
	if err := h.ensureUnreachable(t, u); err != nil {
		return nil, false, false, err
	}
	d, err = h.conn.Device(t.Name)
	if err := h.removeInstead(t, err != nil || isBare(d)); err != nil {
		return nil, false, false, err
	}
	switch {
	case err == nil && !isTunnel(d, t.Alias):
		return nil, false, false, fmt.Errorf("%w: a %s link with alias %q", netlink.ErrExists, d.Kind, d.Alias)
	case errors.Is(err, netlink.ErrNotFound):
		d, made, err = h.createWireGuard(t, u)
	}
	if err != nil {
		return nil, false, false, err
	}
	return d, made, made, h.configure(d, t)
}

// createWireGuard makes the device, down. It reports false when another process made it
// first.
func (h *Tunnels) createWireGuard(t Tunnel, u *netlink.Undo) (*netlink.Device, bool, error) {
	err := h.conn.Change(netlink.Request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		nl.NewIfInfomsg(unix.AF_UNSPEC),
		netlink.AttrString(unix.IFLA_IFNAME, t.Name),
		netlink.Nest(unix.IFLA_LINKINFO, netlink.Attr(nl.IFLA_INFO_KIND, []byte("wireguard")))))
	switch {
	case errors.Is(err, netlink.ErrUnsupported) || errors.Is(err, unix.EOPNOTSUPP):
		return nil, false, ErrNoWireGuard
	case err != nil && !errors.Is(err, netlink.ErrExists):
		return nil, false, fmt.Errorf("create: %w", err)
	}
	made := err == nil
	if made {
		u.Push(func() error { return h.conn.DeleteLinkByName(t.Name) })
	}
	d, err := h.conn.Device(t.Name)
	return d, made, err
}

// configure brings keys, port and peers to what is asked. They are there before the device
// is set up.
func (h *Tunnels) configure(d *netlink.Device, t Tunnel) error {
	dev := t.Secure.device(d)
	have, err := dev.Read()
	if err != nil {
		return err
	}
	change := have.Towards(t.wanted(have))
	if change.Empty() {
		return t.otherKey(have)
	}
	before := have
	if change.PrivateKey != nil { // the kernel tells the public half of it, and drops a peer that has that
		if err := dev.Change(wireguard.Change{PrivateKey: change.PrivateKey}); err != nil {
			return err
		}
		if have, err = dev.Read(); err != nil {
			return err
		}
		change = have.Towards(t.wanted(have))
	}
	if err := t.otherKey(have); err != nil {
		if before.PrivateKey != (wireguard.PrivateKey{}) { // what runs goes on
			err = errors.Join(err, dev.Change(have.Towards(before)))
		}
		return err
	}
	if err := dev.Change(change); errors.Is(err, wireguard.ErrPortInUse) {
		return fmt.Errorf("%w: %w", ErrPortInUse, err)
	} else if err != nil {
		return err
	}
	return nil
}

// otherKey is ErrOtherKey if the device's public key is not the one that the others know.
func (t *Tunnel) otherKey(have wireguard.State) error {
	if want := t.Secure.PublicKey; !want.IsZero() && !have.PublicKey.IsZero() && have.PublicKey != want {
		return fmt.Errorf("%w: it is %s, and the network's hosts know %s", ErrOtherKey, have.PublicKey, want)
	}
	return nil
}

// compareSecure says how keys, port and peers differ.
func (t *Tunnel) compareSecure(at string, have wireguard.State, out *netlink.Diff) {
	c := have.Towards(t.wanted(have))
	if c.PrivateKey != nil {
		out.Add("%s: its private key is not that of privateKeyFile", at)
	}
	if c.Port != nil {
		out.Add("%s: UDP port is %d, want %d", at, have.Port, *c.Port)
	}
	if err := t.otherKey(have); err != nil {
		out.Add("%s: %v", at, err)
	}
	known := map[wireguard.Key]wireguard.Peer{}
	for _, p := range have.Peers {
		known[p.PublicKey] = p
	}
	for _, p := range c.Set {
		if h, there := known[p.PublicKey]; there {
			out.Add("%s: peer %s has endpoint %s and addresses %v, want %s and %v", at, p.PublicKey, h.Endpoint, h.Allowed, p.Endpoint, p.Allowed)
		} else {
			out.Add("%s: peer %s at %s is missing", at, p.PublicKey, p.Endpoint)
		}
	}
	for _, k := range c.Remove {
		out.Add("%s: peer %s is of no host of the network", at, k)
	}
}
