package conntrack

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// BenchmarkFlush is one published port and its container, neither of which has
// a connection, among n others. "list" is how it is done where the kernel's
// filter does not help.
func BenchmarkFlush(b *testing.B) {
	f := Filter{Flows: []Flow{{udp, addr("10.0.0.1"), 53, 0}}, Addrs: []netip.Addr{addr("10.2.0.9")}}
	six := Filter{Addrs: []netip.Addr{addr("fd00:1::9")}}
	led := Filter{Led: []Led{{tcp, netip.MustParseAddrPort("10.0.0.1:54"), addr("10.2.0.9"), true}}}
	// A host is lost that had containers of many services.
	var many Filter
	for i := range 3000 {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 54)
		many.Led = append(many.Led, Led{udp, at, netip.AddrFrom4([4]byte{10, 3, byte(i >> 8), byte(i)}), true})
	}
	ways := map[string]func(*nfnl.Conn) error{
		"flush":      func(*nfnl.Conn) error { return flushIn(b.Context(), f) },
		"flush-IPv6": func(*nfnl.Conn) error { return flushIn(b.Context(), six) },
		"list":       func(c *nfnl.Conn) error { return f.deleteListed(b.Context(), c) },
		"led":        func(c *nfnl.Conn) error { return led.deleteListed(b.Context(), c) },
		"led-many":   func(c *nfnl.Conn) error { return many.deleteListed(b.Context(), c) },
	}
	for _, n := range []int{0, 1, 1000, 50_000} {
		for name, flush := range ways {
			b.Run(fmt.Sprintf("%d/%s", n, name), func(b *testing.B) {
				lntest.Isolate(b)
				c := openConn(b)
				create(b, c, n, func(i int) flow {
					return flow{udp, "10.0.0.1:54", fmt.Sprintf("10.1.%d.%d:54", i>>8&255, i&255), 0, "", 0}
				})
				for b.Loop() {
					if err := flush(c); err != nil {
						b.Fatal(err)
					}
				}
				if got, err := New(nil).entries(); got != n || err != nil {
					b.Errorf("got %d entries, %v, want %d", got, err, n)
				}
			})
		}
	}
}

// FuzzTuple feeds what the kernel would never send.
func FuzzTuple(f *testing.F) {
	var a nfnl.Attrs
	table[0].put(&a, 0)
	f.Add(nfnl.Find(a, ctaTupleOrig))
	f.Fuzz(func(t *testing.T, b []byte) {
		orig := parseTuple(b)
		if is, _ := (Filter{Flows: []Flow{{udp, netip.Addr{}, 1, 65535}}}).matches(orig, tuple{}, 0); is && orig.proto != udp {
			t.Errorf("%+v is not UDP", orig)
		}
	})
}
