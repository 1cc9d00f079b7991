package kernel

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// address is an IP address on a link, host bits included.
type address struct {
	prefix netip.Prefix
	flags  uint32
	// protocol says who put it there (IFA_PROTO, Linux 5.18): the kernel's own
	// are 1 to 3; 0 is unknown.
	protocol byte
}

const (
	ifaProto    = 11 // IFA_PROTO (linux/if_addr.h)
	protoRA     = 2  // IFAPROT_KERNEL_RA
	protoLibnet = 0x6c
)

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func hasIPv6(ps []netip.Prefix) bool {
	for _, p := range ps {
		if p.Addr().Is6() {
			return true
		}
	}
	return false
}

func addrRequest(typ, flags, index int, p netip.Prefix) *nl.NetlinkRequest {
	msg := nl.NewIfAddrmsg(family(p.Addr()))
	msg.Index, msg.Prefixlen = uint32(index), uint8(p.Bits())
	ip := p.Addr().AsSlice()
	return request(typ, flags, msg, attr(unix.IFA_LOCAL, ip), attr(unix.IFA_ADDRESS, ip))
}

// addGateway is addAddr for an address of the host, usable at once, which is
// marked as ours. A kernel before 5.18 has no marks and ignores it.
func (c *conn) addGateway(index int, p netip.Prefix) error {
	return c.addMarked(index, p, false, protoLibnet)
}

// addAddr adds p; the error wraps ErrExists when the link has it. With dad
// false an IPv6 address is usable at once. An IPv4 subnet that has one gets
// its broadcast address (RFC 3021: none below /30).
func (c *conn) addAddr(index int, p netip.Prefix, dad bool) error {
	return c.addMarked(index, p, dad, 0)
}

func (c *conn) addMarked(index int, p netip.Prefix, dad bool, proto byte) error {
	req := addrRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, p)
	switch {
	case p.Addr().Is4() && p.Bits() < 31:
		b := p.Addr().As4()
		host := uint32(1)<<(32-p.Bits()) - 1
		for i := range b {
			b[i] |= byte(host >> (24 - 8*i))
		}
		req.AddData(attr(unix.IFA_BROADCAST, b[:]))
	case p.Addr().Is6() && !dad:
		req.AddData(attrUint32(unix.IFA_FLAGS, unix.IFA_F_NODAD))
	}
	if proto != 0 {
		req.AddData(attr(ifaProto, []byte{proto}))
	}
	if err := c.change(req); err != nil {
		return fmt.Errorf("add address %s: %w", p, err)
	}
	return nil
}

func (c *conn) removeAddr(index int, p netip.Prefix) error {
	if err := c.change(addrRequest(unix.RTM_DELADDR, 0, index, p)); err != nil {
		return fmt.Errorf("remove address %s: %w", p, err)
	}
	return nil
}

// addrs lists a link's addresses. The kernel filters by link since 4.20;
// before, its answer grows with the machine. More are attributes that say where
// the link is.
func (c *conn) addrs(index, family int, more ...nl.NetlinkRequestData) ([]address, error) {
	msgs, err := c.dump(func() *nl.NetlinkRequest {
		msg := nl.NewIfAddrmsg(family)
		msg.Index = uint32(index)
		return request(unix.RTM_GETADDR, 0, append([]nl.NetlinkRequestData{msg}, more...)...)
	}, unix.RTM_NEWADDR)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var as []address
	for _, b := range msgs {
		a, at, err := parseAddr(b)
		if err != nil {
			return nil, err
		}
		if at == index {
			as = append(as, a)
		}
	}
	return as, nil
}

// parseAddr returns an address and the index of its link.
func parseAddr(b []byte) (a address, index int, err error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return a, 0, errShort
	}
	msg := nl.DeserializeIfAddrmsg(b)
	a.flags = uint32(msg.Flags)
	var local, addr netip.Addr
	err = eachAttr(b[unix.SizeofIfAddrmsg:], func(typ uint16, v []byte) error {
		switch typ {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(v)
		case unix.IFA_ADDRESS:
			addr, _ = netip.AddrFromSlice(v)
		case unix.IFA_FLAGS:
			a.flags = uint32(number(v))
		case ifaProto:
			a.protocol = v[0]
		}
		return nil
	})
	if !local.IsValid() { // IPv6 gives IFA_LOCAL only with a peer
		local = addr
	}
	a.prefix = netip.PrefixFrom(local, int(msg.Prefixlen))
	return a, int(msg.Index), err
}

// addrFamily is the family to list for ps: one, or all when ps has both.
func addrFamily(ps []netip.Prefix) int {
	fam := 0
	for _, p := range ps {
		f := family(p.Addr())
		if fam != 0 && fam != f {
			return unix.AF_UNSPEC
		}
		fam = f
	}
	return fam
}

func holds(as []address, p netip.Prefix) bool {
	return slices.ContainsFunc(as, func(a address) bool { return a.prefix == p })
}
