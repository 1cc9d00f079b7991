package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// Errors of tunnels, for errors.Is.
var (
	// ErrVNIInUse: another VXLAN device has the VNI on the same UDP port.
	ErrVNIInUse error = &sentinel.Error{Text: "VNI in use"}
	// ErrPortInUse: something else has the UDP port.
	ErrPortInUse error = &sentinel.Error{Text: "UDP port in use"}
	// ErrRouteConflict: the host has another route to the same destination.
	ErrRouteConflict error = &sentinel.Error{Text: "route conflict"}
)

// MAC is an Ethernet address.
type MAC [6]byte

// String is "02:00:00:12:34:56".
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText writes String.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (m *MAC) UnmarshalText(text []byte) error {
	a, err := net.ParseMAC(string(text))
	if err == nil && len(a) != len(m) {
		err = fmt.Errorf("MAC address %s: want %d bytes", text, len(m))
	}
	copy(m[:], a)
	return err
}

// Route leads to a remote block by the address of its host's end; the zero Via: by the
// device alone.
type Route struct {
	Dst netip.Prefix
	Via netip.Addr
}

// String is "10.80.1.0/24 via 10.80.1.0", or the destination alone.
func (r Route) String() string {
	if !r.Via.IsValid() {
		return r.Dst.String()
	}
	return fmt.Sprintf("%s via %s", r.Dst, r.Via)
}

// Neighbour says which MAC an address behind the tunnel has.
type Neighbour struct {
	Addr netip.Addr
	MAC  MAC
}

// FDBEntry says which host frames for a MAC are sent to.
type FDBEntry struct {
	MAC    MAC
	Remote netip.Addr
}

// Tunnel is a wanted VXLAN device that learns and floods nothing, or, with Secure, a
// WireGuard device; and all that leads by it to other hosts.
type Tunnel struct {
	// Name of the device, 1 to 15 bytes. Alias marks it as ours; a device
	// without it is not touched.
	Name, Alias string
	VNI         int
	Port        uint16 // UDP
	// Local is the host's address on the underlay.
	Local netip.Addr
	// Device of the underlay; empty: whatever the host's routes say.
	Device string
	MAC    MAC
	// MTU in bytes; 0 leaves what there is.
	MTU   int
	IPv6  host.IPv6Mode
	Addrs []netip.Prefix

	Routes     []Route
	Neighbours []Neighbour
	FDB        []FDBEntry

	// Direct are routes that lead past the device, to hosts on the same segment.
	Direct []Direct
	// Nets are all that belongs to the network, where routes may lead past the device: one
	// into them that is ours and not asked for goes. Nil: none of such routes is looked at.
	Nets []netip.Prefix
	// Loose says that packets come by the device from blocks whose routes lead past it: each host
	// chooses the way for itself.
	Loose bool

	// Secure makes it a WireGuard device; nil: it is VXLAN. Name then starts with
	// SecurePrefix, VNI, Local, Device, MAC, Neighbours and FDB are not used, and routes
	// have no Via.
	Secure *Secure
	// Instead are devices that the network may have had by another configuration: they go
	// before this one comes.
	Instead []string
}

func (t *Tunnel) check() error {
	if err := netlink.CheckName("tunnel", t.Name); err != nil {
		return err
	}
	if t.Secure != nil {
		if !strings.HasPrefix(t.Name, SecurePrefix) || t.Port == 0 || t.Alias == "" || len(t.Secure.Nets) == 0 {
			return fmt.Errorf("tunnel %s: want a name that starts with %s, port, alias and nets", t.Name, SecurePrefix)
		}
		return host.CheckAddrs(t.Addrs, t.IPv6)
	}
	if t.VNI < 1 || t.VNI >= 1<<24 || t.Port == 0 || !t.Local.IsValid() || t.Alias == "" {
		return fmt.Errorf("tunnel %s: want VNI, port, local address and alias", t.Name)
	}
	return host.CheckAddrs(t.Addrs, t.IPv6)
}

// EnsureTunnel brings the device and its entries to what is asked, adding
// before it deletes. A reconciled tunnel costs reads only. created says
// that there was no such device; one that cannot be changed is made anew. On
// failure a device that this call made is gone. The error wraps ErrExists when
// another owner has the name, ErrVNIInUse, ErrPortInUse, ErrRouteConflict or
// ErrUnsupported.
func (h *Tunnels) EnsureTunnel(ctx context.Context, t Tunnel) (created bool, err error) {
	if err := errors.Join(ctx.Err(), t.check()); err != nil {
		return false, err
	}
	var u netlink.Undo
	defer func() {
		if err != nil {
			created, err = false, errors.Join(fmt.Errorf("tunnel %s: %w", t.Name, err), u.Run())
		}
	}()
	d, made, created, err := h.ensureDevice(t, &u)
	if err != nil {
		return false, err
	}
	if err := h.adjustTunnel(d, t, made); err != nil {
		return false, err
	}
	var have tunnelState
	if !made {
		if have, err = readTunnel(h.conn, d, t); err != nil {
			return false, err
		}
	}
	for _, s := range h.changes(d, t, have) {
		if err := s.do(); err != nil {
			return false, err
		}
	}
	return created, nil
}

// ensureDevice returns the device, of whichever kind. made says it is fresh, created that no
// other was in its place.
func (h *Tunnels) ensureDevice(t Tunnel, u *netlink.Undo) (d *netlink.Device, made, created bool, err error) {
	if t.Secure != nil {
		return h.ensureSecure(t, u)
	}
	return h.ensureVXLAN(t, u)
}

// ensureVXLAN returns the device. made says it is fresh, created that no other
// was in its place.
func (h *Tunnels) ensureVXLAN(t Tunnel, u *netlink.Undo) (d *netlink.Device, made, created bool, err error) {
	lower := 0
	if t.Device != "" {
		under, err := h.conn.Device(t.Device)
		if err != nil {
			return nil, false, false, fmt.Errorf("device %s: %w", t.Device, err)
		}
		lower = under.Index
	}
	d, err = h.conn.Device(t.Name)
	switch {
	case err == nil && !isTunnel(d, t.Alias):
		return nil, false, false, fmt.Errorf("%w: a %s link with alias %q", netlink.ErrExists, d.Kind, d.Alias)
	case err == nil && len(t.deviceDiff(d, lower)) == 0:
		return d, false, false, nil
	case err == nil:
		if err := h.conn.DeleteLink(d.Index); err != nil && !errors.Is(err, netlink.ErrNotFound) {
			return nil, false, false, fmt.Errorf("make anew: %w", err)
		}
	case errors.Is(err, netlink.ErrNotFound):
		created = true
		if err := h.removeInstead(t, true); err != nil {
			return nil, false, false, err
		}
	default:
		return nil, false, false, err
	}
	d, made, err = h.createVXLAN(t, lower, u)
	return d, made, created && made, err
}

// removeInstead takes away the devices that the network had before. If t is new, that includes
// what is left of those that went without us; else it costs a question for each.
func (h *Tunnels) removeInstead(t Tunnel, isNew bool) error {
	for _, name := range t.Instead {
		if _, err := h.conn.Device(name); errors.Is(err, netlink.ErrNotFound) && !isNew {
			continue
		}
		if err := h.removeDevice(name, t.Alias); err != nil {
			return fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return nil
}

// looseFilter has rp_filter take what has a source that a route leads to, by whichever
// interface: with all/rp_filter of 1 the larger of both counts.
const looseFilter = "2"

// adjustTunnel brings up the device and sets what can be changed.
func (h *Tunnels) adjustTunnel(d *netlink.Device, t Tunnel, made bool) error {
	if made || d.Alias == "" {
		var sysctls host.Sysctls
		if err := sysctls.OwnIPv6(d.Name, t.IPv6, netlink.HasIPv6(t.Addrs)); err != nil {
			return err
		}
	}
	if t.Loose || t.Secure != nil && t.Secure.Loose && (made || d.Alias == "") {
		var sysctls host.Sysctls
		if err := ignore(sysctls.Set("net/ipv4/conf/"+d.Name+"/rp_filter", looseFilter), host.ErrReadOnly); err != nil {
			return err
		}
	}
	mtu := d.MTU
	if t.MTU > 0 {
		mtu = t.MTU
	}
	halts, err := t.halts(d)
	if err != nil || d.Up() && d.MTU == mtu && d.Alias == t.Alias && !halts {
		return err
	}
	attrs := []*nl.RtAttr{netlink.AttrUint32(unix.IFLA_MTU, uint32(mtu)), netlink.Attr(unix.IFLA_IFALIAS, []byte(t.Alias))}
	if halts {
		attrs = append(attrs, netlink.SetIPv4(netlink.Setting{Number: netlink.IPv4Forwarding, Value: 1}))
	}
	// The kernel takes no alias in the creating message: one that is missing is
	// on its way, or the maker of the device was killed.
	if err := h.conn.SetLink(d.Index, unix.IFF_UP, unix.IFF_UP, attrs...); err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			err = fmt.Errorf("%w: %w", ErrPortInUse, err)
		}
		return fmt.Errorf("set up, MTU %d: %w", mtu, err)
	}
	return nil
}

// halts says that IPv4 packets that come by the device go no further, though the host forwards:
// the kernel asks the device they come by.
func (t *Tunnel) halts(d *netlink.Device) (bool, error) {
	is4 := func(p netip.Prefix) bool { return p.Addr().Is4() }
	if !d.V4.Known || d.V4.Forwarding != 0 || !slices.ContainsFunc(t.Addrs, is4) {
		return false, nil
	}
	var sysctls host.Sysctls
	on, err := sysctls.Get(host.ForwardV4)
	return on == "1", err
}

// tunnelState is what the kernel has of a tunnel's entries.
type tunnelState struct {
	addrs      []netlink.Address
	routes     []Route
	neighbours []Neighbour
	fdb        []FDBEntry
	direct     []Direct
}

func readTunnel(c *netlink.Conn, d *netlink.Device, t Tunnel) (s tunnelState, err error) {
	if s.addrs, err = c.Addrs(d.Index, netlink.AddrFamily(t.Addrs)); err != nil {
		return s, err
	}
	if t.Secure == nil {
		if s.neighbours, err = neighbours(c, d.Index); err != nil {
			return s, err
		}
		if s.fdb, err = fdb(c, d.Index); err != nil {
			return s, err
		}
	}
	families := []int{}
	for _, p := range t.Addrs {
		if f := netlink.Family(p.Addr()); !slices.Contains(families, f) {
			families = append(families, f)
		}
	}
	for _, f := range families {
		rs, err := c.Routes(f, d.Index, unix.RT_TABLE_MAIN)
		if err != nil {
			return s, err
		}
		for _, r := range rs {
			if r.Protocol == protocolOurs {
				s.routes = append(s.routes, Route{r.Dst, r.Gateway})
			}
		}
	}
	s.direct, err = readDirect(c, d.Index, t.Nets)
	return s, err
}

// differ returns what is wanted and not there, and what is there and not wanted.
func differ[T comparable](want, have []T) (missing, surplus []T) {
	left := make(map[T]bool, len(have))
	for _, e := range have {
		left[e] = true
	}
	for _, e := range want {
		if !left[e] {
			missing = append(missing, e)
		}
		delete(left, e)
	}
	for _, e := range have {
		if left[e] {
			surplus = append(surplus, e)
		}
	}
	return missing, surplus
}
