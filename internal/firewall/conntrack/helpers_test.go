package conntrack

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

const (
	ctaTimeout = 7
)

// flow is an entry to be made: orig to a port of dst, answered by source.
type flow struct {
	proto  uint8
	dst    string // what the first packet was for
	source string // that answers
	zone   uint16
	client string // that began; empty: one that no other entry has
	state  uint8  // of TCP; 0: none
}

const tcp, udp, sctp = unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP

func (f flow) put(a *nfnl.Attrs, number int) {
	dst, source := netip.MustParseAddrPort(f.dst), netip.MustParseAddrPort(f.source)
	client := netip.AddrFrom4([4]byte{192, 0, byte(number >> 8), byte(number)})
	if dst.Addr().Is6() {
		client = netip.AddrFrom16([16]byte{0: 0xfd, 1: 0xff, 14: byte(number >> 8), 15: byte(number)})
	}
	from := netip.AddrPortFrom(client, uint16(1+number>>16))
	if f.client != "" {
		from = netip.MustParseAddrPort(f.client)
	}
	putTuple(a, ctaTupleOrig, f.proto, from, dst)
	back := from
	if f.client != "" { // masqueraded
		back = netip.AddrPortFrom(addr("192.0.2.1"), from.Port())
		if dst.Addr().Is6() {
			back = netip.AddrPortFrom(addr("2001:db8::1"), from.Port())
		}
	}
	putTuple(a, ctaTupleReply, f.proto, source, back)
	a.Uint32(ctaTimeout, 600)
	if f.state != 0 {
		a.Nest(ctaProtoInfo, func(a *nfnl.Attrs) {
			a.Nest(ctaProtoInfoTCP, func(a *nfnl.Attrs) { a.Uint8(ctaProtoInfoTCPState, f.state) })
		})
	}
	if f.zone != 0 {
		a.Uint16(ctaZone, f.zone)
	}
}

func putTuple(a *nfnl.Attrs, typ uint16, proto uint8, src, dst netip.AddrPort) {
	a.Nest(typ, func(a *nfnl.Attrs) {
		a.Nest(ctaTupleIP, func(a *nfnl.Attrs) {
			s, d := uint16(ctaIPv4Src), uint16(ctaIPv4Dst)
			if src.Addr().Is6() {
				s, d = ctaIPv6Src, ctaIPv6Dst
			}
			a.Bytes(s, src.Addr().AsSlice())
			a.Bytes(d, dst.Addr().AsSlice())
		})
		a.Nest(ctaTupleProto, func(a *nfnl.Attrs) {
			a.Uint8(ctaProtoNum, proto)
			a.Uint16(ctaProtoSrcPort, src.Port())
			a.Uint16(ctaProtoDstPort, dst.Port())
		})
	})
}

func openConn(t testing.TB) *nfnl.Conn {
	t.Helper()
	c, err := nfnl.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// create makes n entries, each what flowOf says.
func create(t testing.TB, c *nfnl.Conn, n int, flowOf func(int) flow) {
	t.Helper()
	for i := 0; i < n; {
		var b nfnl.Buffer
		for ; i < n && b.Len() < deletesAtOnce; i++ {
			number := i
			f := flowOf(i)
			family := familyOf(netip.MustParseAddrPort(f.dst).Addr())
			b.Add(nfnl.Message{
				Subsystem: unix.NFNL_SUBSYS_CTNETLINK, Type: msgNew, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Family: family,
				Put: func(a *nfnl.Attrs) { f.put(a, number) },
			})
		}
		if err := commit(c, &b); err != nil {
			t.Fatalf("create entries: %v", err)
		}
	}
}

// flows lists what is there, in words.
func flows(t testing.TB, c *nfnl.Conn) []string {
	t.Helper()
	names := map[uint8]string{tcp: "tcp", udp: "udp", sctp: "sctp"}
	var all []string
	_, err := list(c, nfnl.Message{Subsystem: unix.NFNL_SUBSYS_CTNETLINK, Type: msgGet}, func(orig, reply tuple, _ uint8) (is, marked bool) {
		if orig.src.IsValid() && names[orig.proto] != "" {
			all = append(all, fmt.Sprint(names[orig.proto], " ", netip.AddrPortFrom(orig.dst, orig.dstPort), " ", netip.AddrPortFrom(reply.src, reply.srcPort)))
		}
		return false, false
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}
