package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// table is what every case starts from.
var table = []flow{
	{udp, "10.0.0.1:53", "10.1.0.2:53", 0, "", 0},
	{udp, "10.0.0.2:53", "10.0.0.2:53", 0, "", 0},
	{udp, "10.0.0.1:54", "10.1.0.2:154", 0, "", 0},
	{udp, "10.0.0.1:56", "10.1.0.3:56", 7, "", 0},
	{tcp, "10.0.0.1:53", "10.1.0.3:53", 0, "", 0},
	{tcp, "10.1.0.2:80", "10.1.0.2:80", 0, "", 0},
	{sctp, "10.0.0.1:53", "10.1.0.3:53", 0, "", 0},
	{sctp, "10.0.0.1:54", "10.1.0.3:54", 0, "", 0},
	{udp, "[fd00::1]:53", "[fd00:1::2]:53", 0, "", 0},
	{udp, "[fd00::2]:53", "[fd00:1::3]:53", 0, "", 0},
	{tcp, "[fd00::1]:53", "[fd00:1::2]:53", 0, "", 0},
	{sctp, "[fd00::1]:53", "[fd00:1::2]:53", 0, "", 0},
	{udp, "198.51.100.9:53", "198.51.100.9:53", 0, "10.1.0.2:5000", 0},
	{tcp, "198.51.100.9:80", "198.51.100.9:80", 0, "10.1.0.3:5001", 0},
	{udp, "[2001:db8:9::9]:99", "[2001:db8:9::9]:99", 0, "[fd00:1::2]:5000", 0},
	{tcp, "10.0.0.5:77", "10.1.0.4:7701", 0, "", tcpSYNSent},
	{tcp, "10.0.0.5:77", "10.1.0.4:7703", 0, "", 3}, // established
	{tcp, "10.0.0.5:77", "10.1.0.4:7706", 0, "", tcpLastACK},
	{tcp, "10.0.0.5:77", "10.1.0.4:7708", 0, "", tcpClose},
	{tcp, "10.0.0.5:77", "10.1.0.5:7708", 0, "", tcpClose}, // by another container
}

// cases name the entries of table that go.
var cases = []struct {
	name string
	f    Filter
	gone []int
}{
	{"port", Filter{Flows: []Flow{{udp, netip.Addr{}, 53, 0}}}, []int{0, 1, 8, 9, 12}},
	{"any IPv4", Filter{Flows: []Flow{{udp, addr("0.0.0.0"), 53, 53}}}, []int{0, 1, 12}},
	{"any IPv6", Filter{Flows: []Flow{{udp, addr("::"), 53, 53}}}, []int{8, 9}},
	{"address", Filter{Flows: []Flow{{udp, addr("10.0.0.1"), 53, 53}}}, []int{0}},
	{"address, mapped", Filter{Flows: []Flow{{udp, addr("::ffff:10.0.0.1"), 53, 53}}}, []int{0}},
	{"IPv6 address", Filter{Flows: []Flow{{udp, addr("fd00::1"), 53, 53}}}, []int{8}},
	{"zone", Filter{Flows: []Flow{{udp, netip.Addr{}, 56, 0}}}, []int{3}},
	{"range", Filter{Flows: []Flow{{udp, netip.Addr{}, 50, 55}}}, []int{0, 1, 2, 8, 9, 12}},
	{"long range", Filter{Flows: []Flow{{udp, netip.Addr{}, 54, 65535}}}, []int{2, 3, 14}},
	{"TCP", Filter{Flows: []Flow{{tcp, netip.Addr{}, 53, 0}}}, []int{4, 10}},
	{"SCTP", Filter{Flows: []Flow{{sctp, netip.Addr{}, 53, 0}}}, []int{6, 11}},
	{"target", Filter{Targets: []netip.Addr{addr("10.1.0.2")}}, []int{0, 2, 5}},
	{"IPv6 target", Filter{Targets: []netip.Addr{addr("fd00:1::2")}}, []int{8, 10, 11}},
	{"container", Filter{Addrs: []netip.Addr{addr("10.1.0.2")}}, []int{0, 2, 5, 12}},
	{"container by IPv6", Filter{Addrs: []netip.Addr{addr("fd00:1::2")}}, []int{8, 10, 11, 14}},
	{"both", Filter{Flows: []Flow{{udp, addr("10.0.0.2"), 53, 0}}, Addrs: []netip.Addr{addr("10.1.0.3")}}, []int{1, 3, 4, 6, 7, 13}},
	{"led", Filter{Led: []Led{
		{udp, netip.MustParseAddrPort("10.0.0.1:53"), addr("10.1.0.2"), true}, {udp, netip.MustParseAddrPort("[fd00::2]:53"), addr("fd00:1::3"), false},
		{tcp, netip.MustParseAddrPort("10.0.0.1:53"), addr("10.1.0.2"), true},
	}}, []int{0, 9}},
	{"led, and gone", Filter{Led: []Led{{tcp, netip.MustParseAddrPort("10.0.0.5:77"), addr("10.1.0.4"), true}}}, []int{15, 17, 18}},
	{"led by any address", Filter{Led: []Led{{tcp, netip.MustParseAddrPort("0.0.0.0:77"), addr("10.1.0.5"), true}, {udp, netip.MustParseAddrPort("[::]:53"), addr("fd00:1::2"), true}}}, []int{8, 19}},
	{"led by any address, but not to its own", Filter{Led: []Led{{udp, netip.MustParseAddrPort("0.0.0.0:53"), addr("10.1.0.2"), true}, {udp, netip.MustParseAddrPort("0.0.0.0:53"), addr("10.0.0.2"), true}}}, []int{0}},
	{"led, and drained", Filter{Led: []Led{{tcp, netip.MustParseAddrPort("10.0.0.5:77"), addr("10.1.0.4"), false}}}, nil},
	{"none there", Filter{Flows: []Flow{{tcp, netip.Addr{}, 9, 0}}, Addrs: []netip.Addr{addr("10.1.0.9")}}, nil},
	{"nothing", Filter{}, nil},
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// flushIn is Flush by a Table of its own.
func flushIn(ctx context.Context, f Filter) error {
	t := New(nil)
	return errors.Join(t.Flush(ctx, f), t.Close())
}

// TestFlush runs every case both ways, as Flush chooses and by listing.
func TestFlush(t *testing.T) {
	t.Parallel()
	for _, tt := range cases {
		for way, flush := range map[string]func(*nfnl.Conn) error{
			"flush": func(*nfnl.Conn) error { return flushIn(t.Context(), tt.f) },
			"list":  func(c *nfnl.Conn) error { return tt.f.deleteListed(t.Context(), c) },
		} {
			t.Run(tt.name+"/"+way, func(t *testing.T) {
				t.Parallel()
				lntest.Isolate(t)
				c := openConn(t)
				create(t, c, len(table), func(i int) flow { return table[i] })
				want := flows(t, c)
				if len(want) != len(table) {
					t.Fatalf("the table has %v", want)
				}
				for _, i := range tt.gone {
					f := table[i]
					text := fmt.Sprint(map[uint8]string{tcp: "tcp", udp: "udp", sctp: "sctp"}[f.proto], " ", f.dst, " ", f.source)
					at := slices.Index(want, text)
					want = slices.Delete(want, at, at+1)
				}
				if err := flush(c); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, flows(t, c)); diff != "" {
					t.Errorf("left (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// Of a container that is drained what a reset has ended is marked, so that it gives way to the
// client's next connection. It is not deleted: it may live again meanwhile.
func TestMarked(t *testing.T) {
	t.Parallel()
	lntest.Isolate(t)
	c := openConn(t)
	create(t, c, len(table), func(i int) flow { return table[i] })
	at := netip.MustParseAddrPort("10.0.0.5:77")
	if err := flushIn(t.Context(), Filter{Led: []Led{{tcp, at, addr("10.1.0.4"), false}}}); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	err := c.Dump(nfnl.Message{Subsystem: unix.NFNL_SUBSYS_CTNETLINK, Type: msgGet}, func(a nfnl.Answer) error {
		by := parseTuple(nfnl.Find(a.Attrs, ctaTupleReply))
		flags := nfnl.Find(nfnl.Find(nfnl.Find(a.Attrs, ctaProtoInfo), ctaProtoInfoTCP), ctaProtoInfoTCPFlags)
		if len(flags) > 0 && parseTuple(nfnl.Find(a.Attrs, ctaTupleOrig)).dstPort == at.Port() {
			got[netip.AddrPortFrom(by.src, by.srcPort).String()] = flags[0]&tcpCloseInit != 0
		}
		return nil
	})
	want := map[string]bool{"10.1.0.4:7701": false, "10.1.0.4:7703": false, "10.1.0.4:7706": false, "10.1.0.4:7708": true, "10.1.0.5:7708": false}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("marked, %v (-want +got):\n%s", err, diff)
	}
}

func TestManyDeleted(t *testing.T) {
	t.Parallel()
	lntest.Isolate(t)
	c := openConn(t)
	const n = 1000
	create(t, c, n, func(i int) flow { return flow{udp, fmt.Sprint("10.0.0.1:", 1000+i), "10.1.0.2:53", 0, "", 0} })
	if got, err := New(nil).entries(); got != n || err != nil {
		t.Fatalf("got %d entries, %v", got, err)
	}
	f := Filter{Flows: []Flow{{udp, netip.Addr{}, 1000, 1000 + n - 2}}}
	if err := flushIn(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"udp 10.0.0.1:1999 10.1.0.2:53"}, flows(t, c)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

// TestOldKernel sends what a kernel before 6.11 sees: the filter is unknown to
// it, so the tuple stands for one entry, of which parts are missing.
func TestOldKernel(t *testing.T) {
	t.Parallel()
	lntest.Isolate(t)
	c := openConn(t)
	create(t, c, len(table), func(i int) flow { return table[i] })
	const unknown = 120
	for _, tt := range cases {
		ps, _ := tt.f.passes()
		for _, p := range ps {
			var b nfnl.Buffer
			b.Add(nfnl.Message{Subsystem: unix.NFNL_SUBSYS_CTNETLINK, Type: msgDelete, Family: p.family, Put: func(a *nfnl.Attrs) {
				start := len(*a)
				p.put(a)
				_ = nfnl.Each((*a)[start:], func(typ uint16, v []byte) error {
					if typ == ctaFilter { // v lies in *a: its header is before it
						at := len(*a) - len(v) - 4
						(*a)[at+2], (*a)[at+3] = unknown, 0
					}
					return nil
				})
			}})
			if err := commit(c, &b); !errors.Is(err, unix.EINVAL) {
				t.Errorf("%+v: got %v, want EINVAL", p, err)
			}
		}
	}
	if got := flows(t, c); len(got) != len(table) {
		t.Errorf("left: %v", got)
	}
}

func TestInvalid(t *testing.T) {
	t.Parallel()
	lntest.Isolate(t)
	c := openConn(t)
	create(t, c, 1, func(i int) flow { return table[i] })
	for _, f := range []Filter{
		{Flows: []Flow{{unix.IPPROTO_ICMP, netip.Addr{}, 53, 0}}},
		{Flows: []Flow{{udp, netip.Addr{}, 0, 0}}},
		{Flows: []Flow{{udp, netip.Addr{}, 53, 52}}},
		{Addrs: []netip.Addr{{}}},
		{Addrs: []netip.Addr{addr("::")}},
	} {
		if err := flushIn(t.Context(), f); err == nil {
			t.Errorf("%+v: no error", f)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := flushIn(ctx, cases[0].f); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
	if got := flows(t, c); len(got) != 1 {
		t.Errorf("left: %v", got)
	}
}

func TestRepeat(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		fails int
		with  error
		calls int
		want  error
	}{
		{0, nil, 1, nil},
		{3, unix.ERESTART, 4, nil},
		{3, fmt.Errorf("list: %w", unix.EINTR), 4, nil},
		{9999, unix.ERESTART, dumpTries, unix.ERESTART},
		{1, unix.EPERM, 1, unix.EPERM},
	} {
		calls := 0
		err := repeat(func() error {
			if calls++; calls <= tt.fails {
				return tt.with
			}
			return nil
		})
		if calls != tt.calls || !errors.Is(err, tt.want) {
			t.Errorf("%d times %v: %d calls, %v, want %d, %v", tt.fails, tt.with, calls, err, tt.calls, tt.want)
		}
	}
}
