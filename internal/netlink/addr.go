package netlink

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Address is an IP address on a link, host bits included.
type Address struct {
	Prefix netip.Prefix
	Flags  uint32
	// Protocol says which program added it (IFA_PROTO, Linux 5.18): 1 to 3 are the
	// kernel itself; 0 is unknown.
	Protocol byte
}

const (
	ifaProto    = 11 // IFA_PROTO (linux/if_addr.h)
	ProtoRA     = 2  // IFAPROT_KERNEL_RA
	ProtoLibnet = 0x6c
)

// Family is AF_INET or AF_INET6.
func Family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// HasIPv6 says whether one of ps is IPv6.
func HasIPv6(ps []netip.Prefix) bool {
	for _, p := range ps {
		if p.Addr().Is6() {
			return true
		}
	}
	return false
}

func addrRequest(typ, flags, index int, p netip.Prefix) *nl.NetlinkRequest {
	msg := nl.NewIfAddrmsg(Family(p.Addr()))
	msg.Index, msg.Prefixlen = uint32(index), uint8(p.Bits())
	ip := p.Addr().AsSlice()
	return Request(typ, flags, msg, Attr(unix.IFA_LOCAL, ip), Attr(unix.IFA_ADDRESS, ip))
}

// AddGateway is AddAddr for an address of the host, usable at once, which is
// marked as ours. A kernel before 5.18 has no marks and ignores it.
func (c *Conn) AddGateway(index int, p netip.Prefix) error {
	return c.addMarked(index, p, false, ProtoLibnet)
}

// AddAddr adds p; the error wraps ErrExists when the link has it. With dad
// false an IPv6 address is usable at once. An IPv4 subnet that has one gets
// its broadcast address (RFC 3021: none below /30).
func (c *Conn) AddAddr(index int, p netip.Prefix, dad bool) error {
	return c.addMarked(index, p, dad, 0)
}

func (c *Conn) addMarked(index int, p netip.Prefix, dad bool, proto byte) error {
	req := addrRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, p)
	switch {
	case p.Addr().Is4() && p.Bits() < 31:
		b := p.Addr().As4()
		host := uint32(1)<<(32-p.Bits()) - 1
		for i := range b {
			b[i] |= byte(host >> (24 - 8*i))
		}
		req.AddData(Attr(unix.IFA_BROADCAST, b[:]))
	case p.Addr().Is6() && !dad:
		req.AddData(AttrUint32(unix.IFA_FLAGS, unix.IFA_F_NODAD))
	}
	if proto != 0 {
		req.AddData(Attr(ifaProto, []byte{proto}))
	}
	if err := c.Change(req); err != nil {
		return fmt.Errorf("add address %s: %w", p, err)
	}
	return nil
}

// RemoveAddr removes p from a link. The kernel answers EADDRNOTAVAIL where it is
// not there.
func (c *Conn) RemoveAddr(index int, p netip.Prefix) error {
	if err := c.Change(addrRequest(unix.RTM_DELADDR, 0, index, p)); err != nil {
		return fmt.Errorf("remove address %s: %w", p, err)
	}
	return nil
}

// Addrs lists a link's addresses. The kernel filters by link since 4.20;
// before, its answer grows with the machine. More are attributes that say where
// the link is.
func (c *Conn) Addrs(index, family int, more ...nl.NetlinkRequestData) ([]Address, error) {
	msgs, err := c.Dump(func() *nl.NetlinkRequest {
		msg := nl.NewIfAddrmsg(family)
		msg.Index = uint32(index)
		return Request(unix.RTM_GETADDR, 0, append([]nl.NetlinkRequestData{msg}, more...)...)
	}, unix.RTM_NEWADDR)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var as []Address
	for _, b := range msgs {
		a, at, err := ParseAddr(b)
		if err != nil {
			return nil, err
		}
		if at == index {
			as = append(as, a)
		}
	}
	return as, nil
}

// ParseAddr returns an address and the index of its link.
func ParseAddr(b []byte) (a Address, index int, err error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return a, 0, ErrShort
	}
	msg := nl.DeserializeIfAddrmsg(b)
	a.Flags = uint32(msg.Flags)
	var local, addr netip.Addr
	err = EachAttr(b[unix.SizeofIfAddrmsg:], func(typ uint16, v []byte) error {
		switch typ {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(v)
		case unix.IFA_ADDRESS:
			addr, _ = netip.AddrFromSlice(v)
		case unix.IFA_FLAGS:
			a.Flags = uint32(Number(v))
		case ifaProto:
			a.Protocol = v[0]
		}
		return nil
	})
	if !local.IsValid() { // IPv6 gives IFA_LOCAL only with a peer
		local = addr
	}
	a.Prefix = netip.PrefixFrom(local, int(msg.Prefixlen))
	return a, int(msg.Index), err
}

// AddrFamily is the family to list for ps: one, or all when ps has both.
func AddrFamily(ps []netip.Prefix) int {
	fam := 0
	for _, p := range ps {
		f := Family(p.Addr())
		if fam != 0 && fam != f {
			return unix.AF_UNSPEC
		}
		fam = f
	}
	return fam
}

// Holds says whether p, host bits included, is one of as.
func Holds(as []Address, p netip.Prefix) bool {
	return slices.ContainsFunc(as, func(a Address) bool { return a.Prefix == p })
}
