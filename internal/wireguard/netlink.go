package wireguard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// Of linux/wireguard.h and linux/genetlink.h.
const (
	getDevice = 0
	setDevice = 1

	devIfname     = 2
	devPrivateKey = 3
	devPublicKey  = 4
	devListenPort = 6
	devPeers      = 8

	peerPublicKey  = 1
	peerFlags      = 3
	peerEndpoint   = 4
	peerKeepalive  = 5
	peerHandshake  = 6
	peerReceived   = 7
	peerSent       = 8
	peerAllowedIPs = 9

	peerRemove         = 1 << 0
	peerReplaceAllowed = 1 << 1

	allowedFamily = 1
	allowedAddr   = 2
	allowedBits   = 3

	genericVersion = 1
	genericHeader  = 4 // bytes
)

// mostPeers of one message: the attribute that has them cannot be longer than 64 KiB.
const mostPeers = 128

// generic is the header of a message of generic netlink.
type generic struct{ command byte }

func (generic) Len() int { return genericHeader }

func (g generic) Serialize() []byte { return []byte{g.command, genericVersion, 0, 0} }

// family returns the number of WireGuard's family. The kernel loads the module for it.
func family() (int, error) {
	req := nl.NewNetlinkRequest(unix.GENL_ID_CTRL, unix.NLM_F_ACK)
	req.AddData(generic{unix.CTRL_CMD_GETFAMILY})
	req.AddData(netlink.AttrString(unix.CTRL_ATTR_FAMILY_NAME, "wireguard"))
	msgs, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if errors.Is(err, unix.ENOENT) {
		return 0, ErrUnsupported
	}
	if err != nil {
		return 0, fmt.Errorf("generic netlink: %w", err)
	}
	id := 0
	for _, b := range msgs {
		err = eachAttr(b, func(typ uint16, v []byte) error {
			if typ == unix.CTRL_ATTR_FAMILY_ID && len(v) >= 2 {
				id = int(binary.NativeEndian.Uint16(v))
			}
			return nil
		})
	}
	if err == nil && id == 0 {
		err = ErrUnsupported
	}
	return id, err
}

// Supported is nil if the kernel has WireGuard, whose module it loads if need be, and
// ErrUnsupported if not.
func Supported() error {
	_, err := family()
	return err
}

// eachAttr calls fn for the attributes behind the header of generic netlink.
func eachAttr(b []byte, fn func(typ uint16, v []byte) error) error {
	if len(b) < genericHeader {
		return netlink.ErrShort
	}
	return netlink.EachAttr(b[genericHeader:], fn)
}

// request is one for the device.
func (d Device) request(command byte, flags int) (*nl.NetlinkRequest, error) {
	id, err := family()
	if err != nil {
		return nil, err
	}
	req := nl.NewNetlinkRequest(id, flags)
	req.AddData(generic{command})
	req.AddData(netlink.AttrString(devIfname, d.Name))
	return req, nil
}

func (d Device) readByNetlink() (s State, err error) {
	req, err := d.request(getDevice, unix.NLM_F_DUMP)
	if err != nil {
		return s, err
	}
	msgs, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return s, fmt.Errorf("read WireGuard device %s: %w", d.Name, err)
	}
	for _, b := range msgs { // of many peers as many messages as they need
		if err := s.parse(b); err != nil {
			return s, fmt.Errorf("read WireGuard device %s: %w", d.Name, err)
		}
	}
	return s, nil
}

func (s *State) parse(b []byte) error {
	return eachAttr(b, func(typ uint16, v []byte) error {
		switch {
		case typ == devPrivateKey && len(v) == keySize:
			s.PrivateKey = PrivateKey(v)
		case typ == devPublicKey && len(v) == keySize:
			s.PublicKey = Key(v)
		case typ == devListenPort && len(v) >= 2:
			s.Port = binary.NativeEndian.Uint16(v)
		case typ == devPeers:
			return netlink.EachAttr(v, func(_ uint16, one []byte) error { return s.parsePeer(one) })
		}
		return nil
	})
}

// parsePeer takes a peer, or more addresses of the last one.
func (s *State) parsePeer(b []byte) error {
	var p Peer
	err := netlink.EachAttr(b, func(typ uint16, v []byte) error {
		switch {
		case typ == peerPublicKey && len(v) == keySize:
			p.PublicKey = Key(v)
		case typ == peerEndpoint:
			p.Endpoint = parseSockaddr(v)
		case typ == peerKeepalive && len(v) >= 2:
			p.Keepalive = binary.NativeEndian.Uint16(v)
		case typ == peerHandshake && len(v) >= 8: // struct __kernel_timespec
			p.Handshake = int64(binary.NativeEndian.Uint64(v))
		case typ == peerReceived && len(v) >= 8:
			p.Received = binary.NativeEndian.Uint64(v)
		case typ == peerSent && len(v) >= 8:
			p.Sent = binary.NativeEndian.Uint64(v)
		case typ == peerAllowedIPs:
			return netlink.EachAttr(v, func(_ uint16, one []byte) error {
				a, err := parseAllowed(one)
				p.Allowed = append(p.Allowed, a)
				return err
			})
		}
		return nil
	})
	if last := len(s.Peers) - 1; last >= 0 && s.Peers[last].PublicKey == p.PublicKey {
		s.Peers[last].Allowed = append(s.Peers[last].Allowed, p.Allowed...)
		return err
	}
	s.Peers = append(s.Peers, p)
	return err
}

func parseAllowed(b []byte) (netip.Prefix, error) {
	var addr netip.Addr
	bits := -1
	err := netlink.EachAttr(b, func(typ uint16, v []byte) error {
		switch {
		case typ == allowedAddr:
			addr, _ = netip.AddrFromSlice(v)
		case typ == allowedBits && len(v) > 0:
			bits = int(v[0])
		}
		return nil
	})
	return netip.PrefixFrom(addr, bits), err
}

// The sizes of struct sockaddr_in and sockaddr_in6.
const (
	sockaddr4 = 16
	sockaddr6 = 28
)

func parseSockaddr(b []byte) netip.AddrPort {
	if len(b) < sockaddr4 {
		return netip.AddrPort{}
	}
	port := binary.BigEndian.Uint16(b[2:])
	switch binary.NativeEndian.Uint16(b) {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port)
	case unix.AF_INET6:
		if len(b) >= sockaddr6 {
			return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), port)
		}
	}
	return netip.AddrPort{}
}

func sockaddr(a netip.AddrPort) []byte {
	family, size := uint16(unix.AF_INET), sockaddr4
	if a.Addr().Is6() {
		family, size = unix.AF_INET6, sockaddr6
	}
	b := binary.NativeEndian.AppendUint16(make([]byte, 0, size), family)
	b = binary.BigEndian.AppendUint16(b, a.Port())
	if a.Addr().Is6() {
		b = append(b, 0, 0, 0, 0) // flow
	}
	b = append(b, a.Addr().AsSlice()...)
	return b[:size]
}

func (d Device) changeByNetlink(c Change) error {
	var peers []*nl.RtAttr
	for _, k := range c.Remove {
		peers = append(peers, nest(0, netlink.Attr(peerPublicKey, k[:]), netlink.AttrUint32(peerFlags, peerRemove)))
	}
	for _, p := range c.Set {
		peers = append(peers, p.attr())
	}
	first := true
	for part := range slices.Chunk(peers, mostPeers) {
		if err := d.set(c, part, first); err != nil {
			return err
		}
		first = false
	}
	if first {
		return d.set(c, nil, true)
	}
	return nil
}

// set sends one message; what is not of peers goes with the first.
func (d Device) set(c Change, peers []*nl.RtAttr, first bool) error {
	req, err := d.request(setDevice, unix.NLM_F_ACK)
	if err != nil {
		return err
	}
	if c.PrivateKey != nil && first {
		req.AddData(netlink.Attr(devPrivateKey, c.PrivateKey[:]))
	}
	if c.Port != nil && first {
		req.AddData(netlink.Attr(devListenPort, binary.NativeEndian.AppendUint16(nil, *c.Port)))
	}
	if len(peers) > 0 {
		req.AddData(nest(devPeers, peers...))
	}
	_, err = req.Execute(unix.NETLINK_GENERIC, 0)
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("%w: %w", ErrPortInUse, err)
	}
	if err != nil {
		return fmt.Errorf("change WireGuard device %s: %w", d.Name, err)
	}
	return nil
}

// nest is netlink.Nest with the flag that generic netlink wants.
func nest(typ int, children ...*nl.RtAttr) *nl.RtAttr {
	return netlink.Nest(typ|unix.NLA_F_NESTED, children...)
}

func (p Peer) attr() *nl.RtAttr {
	all := []*nl.RtAttr{netlink.Attr(peerPublicKey, p.PublicKey[:]), netlink.AttrUint32(peerFlags, peerReplaceAllowed)}
	if p.Endpoint.IsValid() {
		all = append(all, netlink.Attr(peerEndpoint, sockaddr(p.Endpoint)))
	}
	if p.Keepalive != 0 {
		all = append(all, netlink.Attr(peerKeepalive, binary.NativeEndian.AppendUint16(nil, p.Keepalive)))
	}
	var allowed []*nl.RtAttr
	for _, a := range p.Allowed {
		allowed = append(allowed, nest(0,
			netlink.Attr(allowedFamily, binary.NativeEndian.AppendUint16(nil, uint16(netlink.Family(a.Addr())))),
			netlink.Attr(allowedAddr, a.Addr().AsSlice()), netlink.Attr(allowedBits, []byte{byte(a.Bits())})))
	}
	if len(allowed) > 0 {
		all = append(all, nest(peerAllowedIPs, allowed...))
	}
	return nest(0, all...)
}
