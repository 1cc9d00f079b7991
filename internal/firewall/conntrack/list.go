package conntrack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

const (
	// dumpTries bounds how often an interrupted dump is read again: each time
	// another process has changed the table meanwhile.
	dumpTries = 1000
	// deletesAtOnce is few enough for the answers to fit into the receive buffer.
	deletesAtOnce = 64
)

// entry is a connection as its deletion names it.
type entry struct {
	family uint8
	tuple  []byte // of the first packet
	id     []byte // tells it from a later one of the same tuple
	zone   []byte // nil: 0
	marked bool   // it is not deleted, see Led.Gone
}

// deleteListed lists the table, compares here, and deletes what matches.
func (f Filter) deleteListed(ctx context.Context, c *nfnl.Conn) error {
	var found []entry
	f.by = ledBy(f.Led)
	err := repeat(func() error {
		found = nil
		for _, what := range f.listings() {
			some, err := list(c, what, f.matches)
			if err != nil {
				return err
			}
			found = append(found, some...)
		}
		return nil
	})
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("list: %w: %w", ErrUnsupported, err) // nothing else is wrong with the request
	}
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	for len(found) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(len(found), deletesAtOnce)
		var b nfnl.Buffer
		for _, e := range found[:n] {
			b.Add(e.message())
		}
		if err := commit(c, &b); err != nil {
			return err
		}
		found = found[n:]
	}
	return nil
}

func (e entry) message() nfnl.Message {
	m := nfnl.Message{Subsystem: unix.NFNL_SUBSYS_CTNETLINK, Type: msgDelete, Family: e.family, Put: e.put}
	if e.marked {
		m.Type, m.Put = msgNew, e.mark
	}
	return m
}

// mark has an entry that is closed give way to the client's next connection. The kernel has it so
// after an end without a reset.
func (e entry) mark(a *nfnl.Attrs) {
	e.put(a)
	a.Nest(ctaProtoInfo, func(a *nfnl.Attrs) {
		a.Nest(ctaProtoInfoTCP, func(a *nfnl.Attrs) { a.Bytes(ctaProtoInfoTCPFlags, []byte{tcpCloseInit, tcpCloseInit}) })
	})
}

func (e entry) put(a *nfnl.Attrs) {
	a.Nest(ctaTupleOrig, func(a *nfnl.Attrs) { *a = append(*a, e.tuple...) })
	a.Bytes(ctaID, e.id)
	if e.zone != nil {
		a.Bytes(ctaZone, e.zone)
	}
}

// repeat calls fn again while the table changed its shape under its dump: what that
// gave may be incomplete.
func repeat(fn func() error) error {
	for try := 1; ; try++ {
		err := fn()
		interrupted := errors.Is(err, unix.ERESTART) || errors.Is(err, unix.EINTR)
		if !interrupted || try == dumpTries {
			return err
		}
	}
}

// mostListings bounds how often the kernel walks over its table, each time for one container. To send
// entries takes it longer than to pass over them.
const mostListings = 4

// listings are the requests that list what f may be about.
func (f Filter) listings() (all []nfnl.Message) {
	request := func(family uint8, put func(*nfnl.Attrs)) nfnl.Message {
		return nfnl.Message{Subsystem: unix.NFNL_SUBSYS_CTNETLINK, Type: msgGet, Family: family, Put: put}
	}
	if len(f.Flows)+len(f.Targets)+len(f.Addrs)+len(f.To) > 0 {
		return []nfnl.Message{request(unix.NFPROTO_UNSPEC, nil)}
	}
	is6, by := false, map[netip.Addr]bool{}
	for a := range f.by {
		if a.Is4() {
			by[a] = true
		} else {
			is6 = true
		}
	}
	if is6 { // see passes
		all = append(all, request(unix.NFPROTO_IPV6, nil))
	}
	if len(by) > mostListings {
		return append(all, request(unix.NFPROTO_IPV4, nil))
	}
	for a := range by {
		all = append(all, request(unix.NFPROTO_IPV4, pass{source: a}.put))
	}
	return all
}

// list returns the entries that match. It reads to the end of
// the dump even if that is of no use any more: the socket is asked again.
func list(c *nfnl.Conn, what nfnl.Message, matches func(orig, reply tuple, state uint8) (is, marked bool)) ([]entry, error) {
	var found []entry
	err := c.Dump(what, func(a nfnl.Answer) error {
		orig := nfnl.Find(a.Attrs, ctaTupleOrig)
		t := parseTuple(orig)
		if is, marked := matches(t, parseTuple(nfnl.Find(a.Attrs, ctaTupleReply)), stateOf(a.Attrs)); is {
			found = append(found, entry{
				family: familyOf(t.dst), tuple: bytes.Clone(orig),
				id: bytes.Clone(nfnl.Find(a.Attrs, ctaID)), zone: bytes.Clone(nfnl.Find(a.Attrs, ctaZone)), marked: marked,
			})
		}
		return nil
	})
	return found, err
}

// stateOf is the state of an entry of TCP; 0: of another protocol.
func stateOf(attrs []byte) uint8 {
	state := nfnl.Find(nfnl.Find(nfnl.Find(attrs, ctaProtoInfo), ctaProtoInfoTCP), ctaProtoInfoTCPState)
	if len(state) == 0 {
		return 0
	}
	return state[0]
}

// ledBy has those of each container: where many services lose many of them, each entry of a full table
// is compared with few.
func ledBy(all []Led) map[netip.Addr][]Led {
	by := map[netip.Addr][]Led{}
	for _, l := range all {
		by[l.By] = append(by[l.By], l)
	}
	return by
}

// matches reports whether f is about an entry, and whether that is to be marked as ended instead of
// being deleted.
func (f Filter) matches(orig, reply tuple, state uint8) (is, marked bool) {
	for _, a := range f.Targets {
		if a.Unmap() == reply.src {
			return true, false
		}
	}
	for _, a := range f.Addrs {
		if a = a.Unmap(); a == reply.src || a == orig.src {
			return true, false
		}
	}
	for _, p := range f.To {
		if orig.dst.IsValid() && p.Contains(orig.dst) {
			return true, false
		}
	}
	for _, l := range f.by[reply.src] {
		if l.is(orig, reply, state) {
			return true, l.Protocol == unix.IPPROTO_TCP && !l.Gone
		}
	}
	for _, w := range f.Flows {
		any := !w.HostIP.IsValid() || w.HostIP.IsUnspecified()
		if w.Protocol == orig.proto && w.First <= orig.dstPort && orig.dstPort <= w.last() &&
			w.in(orig.dst) && (any || w.HostIP.Unmap() == orig.dst) {
			return true, false
		}
	}
	return false, false
}

// tuple is one direction of a connection.
type tuple struct {
	src, dst         netip.Addr
	proto            uint8
	srcPort, dstPort uint16
}

// parseTuple reads what it can; the rest stays zero, which matches nothing.
func parseTuple(b []byte) tuple {
	var t tuple
	_ = nfnl.Each(nfnl.Find(b, ctaTupleIP), func(typ uint16, v []byte) error {
		switch typ {
		case ctaIPv4Src, ctaIPv6Src:
			t.src, _ = netip.AddrFromSlice(v)
		case ctaIPv4Dst, ctaIPv6Dst:
			t.dst, _ = netip.AddrFromSlice(v)
		}
		return nil
	})
	_ = nfnl.Each(nfnl.Find(b, ctaTupleProto), func(typ uint16, v []byte) error {
		switch {
		case typ == ctaProtoNum && len(v) == 1:
			t.proto = v[0]
		case typ == ctaProtoSrcPort && len(v) == 2:
			t.srcPort = binary.BigEndian.Uint16(v)
		case typ == ctaProtoDstPort && len(v) == 2:
			t.dstPort = binary.BigEndian.Uint16(v)
		}
		return nil
	})
	return t
}
