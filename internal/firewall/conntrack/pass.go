package conntrack

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// pass is one walk of the kernel over its table: it deletes the entries that
// have all that is set here.
type pass struct {
	family uint8      // NFPROTO_IPV4 or _IPV6
	begun  netip.Addr // IPv4, source of the first packet
	source netip.Addr // IPv4, of answers
	dst    netip.Addr // IPv4, of the first packet
	proto  uint8
	port   uint16 // where the first packet went
}

// passes returns what deletes f. Not ok: a list is better, or needed. Up to
// Linux 6.18 at least the kernel's filter finds the IPv6 addresses that are
// not the one it was given, and looks at ports of TCP and UDP only.
func (f Filter) passes() (ps []pass, ok bool) {
	if len(f.To)+len(f.Led) > 0 {
		return nil, false
	}
	for _, a := range slices.Concat(f.Targets, f.Addrs) { // what it answers, whatever address it was called by
		if a = a.Unmap(); !a.Is4() {
			return nil, false
		}
		ps = append(ps, pass{family: unix.NFPROTO_IPV4, source: a})
	}
	for _, a := range f.Addrs { // what it began, whatever address it was given
		ps = append(ps, pass{family: unix.NFPROTO_IPV4, begun: a.Unmap()})
	}
	for _, w := range f.Flows {
		if w.Protocol == unix.IPPROTO_SCTP || w.last()-w.First >= maxPasses {
			return nil, false
		}
		dst := w.HostIP.Unmap()
		if dst.IsUnspecified() {
			dst = netip.Addr{}
		}
		if dst.Is6() {
			return nil, false
		}
		for _, zero := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
			if !w.in(zero) {
				continue
			}
			for port := int(w.First); port <= int(w.last()); port++ {
				ps = append(ps, pass{family: familyOf(zero), proto: w.Protocol, dst: dst, port: uint16(port)})
			}
		}
	}
	return ps, len(ps) <= maxPasses
}

func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}

// deletePasses asks for all passes at once. EINVAL is a kernel that cannot.
func deletePasses(c *nfnl.Conn, ps []pass) error {
	var b nfnl.Buffer
	for _, p := range ps {
		b.Add(nfnl.Message{Subsystem: unix.NFNL_SUBSYS_CTNETLINK, Type: msgDelete, Family: p.family, Put: p.put})
	}
	return commit(c, &b)
}

// put writes one of the two tuples, each pass having one. That tuple is also
// what keeps kernels before 6.11 from deleting everything: to them it stands
// for one entry, and is not complete.
func (p pass) put(a *nfnl.Attrs) {
	var orig, reply uint32
	switch {
	case p.begun.IsValid():
		orig = 1 << filterSrc
		a.Nest(ctaTupleOrig, func(a *nfnl.Attrs) { putAddr(a, ctaIPv4Src, p.begun) })
	case p.source.IsValid():
		reply = 1 << filterSrc
		a.Nest(ctaTupleReply, func(a *nfnl.Attrs) { putAddr(a, ctaIPv4Src, p.source) })
	default:
		orig = 1<<filterProto | 1<<filterDstPort
		a.Nest(ctaTupleOrig, func(a *nfnl.Attrs) {
			if p.dst.IsValid() {
				orig |= 1 << filterDst
				putAddr(a, ctaIPv4Dst, p.dst)
			}
			a.Nest(ctaTupleProto, func(a *nfnl.Attrs) {
				a.Uint8(ctaProtoNum, p.proto)
				a.Uint16(ctaProtoDstPort, p.port)
			})
		})
	}
	a.Nest(ctaFilter, func(a *nfnl.Attrs) { // the one attribute in the order of the machine
		a.Bytes(ctaFilterOrig, binary.NativeEndian.AppendUint32(nil, orig))
		a.Bytes(ctaFilterReply, binary.NativeEndian.AppendUint32(nil, reply))
	})
}

func putAddr(a *nfnl.Attrs, typ uint16, ip netip.Addr) {
	a.Nest(ctaTupleIP, func(a *nfnl.Attrs) { a.Bytes(typ, ip.AsSlice()) })
}

// commit sends requests and returns the first error but "no such entry".
func commit(c *nfnl.Conn, b *nfnl.Buffer) error {
	b.AckLast()
	if err := c.Send(b); err != nil {
		return err
	}
	var first error
	err := c.Receive(func(a nfnl.Answer, _ bool, errno unix.Errno) (bool, error) {
		if errno != 0 && errno != unix.ENOENT && first == nil {
			first = errno
		}
		return int(a.Seq) == b.Len(), nil
	})
	return errors.Join(first, err)
}
