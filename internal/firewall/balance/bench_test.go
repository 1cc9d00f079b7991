package balance

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// serviceElems is one of many services, of UDP, with ten backends. The first one's number
// differs from the others' only.
func (f Families) serviceElems(number, first int) (all []Elem) {
	vip := netip.AddrFrom4([4]byte{10, 100, byte(number >> 8), byte(number)})
	p := Port{vip, firewall.UDP, 80}
	all = append(f.Address(vip, "br0"), f.Count(p))
	for i := range spreadBuckets {
		to := netip.AddrFrom4([4]byte{10, 1, 0, byte(2 + (first+i)%10)})
		all = append(all, f.Bucket(Spread, p, i, netip.AddrPortFrom(to, 8080)))
	}
	return all
}

// kernelMemory is what the kernel has for itself and cannot give back, in MiB: rules are of it.
func kernelMemory(b *testing.B) (n int) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		b.Fatal(err)
	}
	for _, kind := range []string{"SUnreclaim:", "VmallocUsed:"} {
		_, rest, _ := strings.Cut(string(text), kind)
		var kib int
		_, _ = fmt.Sscan(rest, &kib)
		n += kib
	}
	return n / 1024
}

// BenchmarkServices is the first packet of a connection to one service, and the change of one,
// beside so many others.
func BenchmarkServices(b *testing.B) {
	for _, services := range []int{0, 1, 1000, 10000} {
		b.Run(fmt.Sprint(services), func(b *testing.B) {
			lntest.Isolate(b)
			f, ctx := New(), context.Background()
			defer func() { _ = f.Close() }()
			must := func(err error) {
				b.Helper()
				if err != nil {
					b.Fatal(err)
				}
			}
			must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "d0"}, PeerName: "d1"}))
			must(lntest.Up("d0", "10.1.0.1/16"))
			must(lntest.Up("d1"))
			d0, err := netlink.LinkByName("d0")
			must(err)
			must(netlink.RouteAdd(&netlink.Route{LinkIndex: d0.Attrs().Index, Dst: lntest.CIDR("10.100.0.0/16")}))
			mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
			for i := range 10 {
				must(netlink.NeighAdd(&netlink.Neigh{LinkIndex: d0.Attrs().Index, IP: net.IPv4(10, 1, 0, byte(2+i)), HardwareAddr: mac, State: netlink.NUD_PERMANENT}))
			}
			must(netlink.NeighAdd(&netlink.Neigh{LinkIndex: d0.Attrs().Index, IP: net.IPv4(10, 100, 0, 0), HardwareAddr: mac, State: netlink.NUD_PERMANENT}))
			before := kernelMemory(b)
			for at := 0; at < services; at += 100 {
				var some []Elem
				for i := at; i < min(at+100, services); i++ {
					some = append(some, f.serviceElems(i, 0)...)
				}
				_, err := f.Apply(ctx, some, nil)
				must(err)
			}
			time.Sleep(2 * time.Second) // the kernel resizes its tables
			used, change := kernelMemory(b)-before, time.Duration(0)
			if services > 0 {
				start, n := time.Now(), 50
				for i := range n {
					_, err := f.Apply(ctx, f.serviceElems(0, i), nil)
					must(err)
				}
				change = time.Since(start) / time.Duration(n)
			}
			conns := make([]net.Conn, 2000)
			var best time.Duration
			for b.Loop() {
				for i := range conns {
					var err error
					conns[i], err = net.Dial("udp", "10.100.0.0:80")
					must(err)
				}
				start := time.Now()
				for _, c := range conns {
					_, err := c.Write([]byte("?"))
					must(err)
				}
				if d := time.Since(start); best == 0 || d < best {
					best = d
				}
				for _, c := range conns {
					_ = c.Close()
				}
			}
			b.ReportMetric(float64(used), "MiB")
			b.ReportMetric(float64(change.Microseconds())/1000, "ms/change")
			b.ReportMetric(float64(best.Nanoseconds())/float64(len(conns)), "ns/first-packet")
		})
	}
}
