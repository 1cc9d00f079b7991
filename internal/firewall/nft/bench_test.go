package nft

import (
	"fmt"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
)

// fill applies networks and endpoints 1 to count, many in one transaction.
func fill(b *testing.B, f *Firewall, count int) {
	b.Helper()
	for i := 1; i <= count; {
		send(b, f, func(bt *batch) {
			if i == 1 {
				bt.ensure(ruleset.InetTable())
				bt.ensure(ruleset.BridgeTable())
			}
			for last := min(i+99, count); i <= last; i++ {
				p, err := ruleset.Plan(sample(i))
				if err != nil {
					b.Fatal(err)
				}
				for _, e := range p.Elems {
					bt.Put(e)
				}
			}
		})
	}
}

// BenchmarkApplyRemove is one ADD and one DEL of an endpoint with two
// addresses and a MAC, six elements, while others exist.
func BenchmarkApplyRemove(b *testing.B) {
	for _, count := range []int{1, 100, 10000} {
		b.Run(fmt.Sprintf("endpoints=%d", count), func(b *testing.B) {
			f := start(b)
			fill(b, f, count)
			n, e := sample(count + 1)
			n.Internal, n.NoICC = false, false
			for b.Loop() {
				mustApply(b, f, n, e)
				mustRemove(b, f, e)
			}
		})
	}
}

func BenchmarkApply(b *testing.B) {
	benchmark(b, func(b *testing.B, f *Firewall, n firewall.Network, e firewall.Endpoint) { mustApply(b, f, n, e) })
}
func BenchmarkVerify(b *testing.B) {
	benchmark(b, func(b *testing.B, f *Firewall, n firewall.Network, e firewall.Endpoint) { mustVerify(b, f, n, e) })
}
func BenchmarkList(b *testing.B) {
	benchmark(b, func(b *testing.B, f *Firewall, _ firewall.Network, _ firewall.Endpoint) {
		if _, err := f.List(b.Context()); err != nil {
			b.Fatal(err)
		}
	})
}

func benchmark(b *testing.B, fn func(*testing.B, *Firewall, firewall.Network, firewall.Endpoint)) {
	for _, count := range []int{1, 10000} {
		b.Run(fmt.Sprintf("endpoints=%d", count), func(b *testing.B) {
			f := start(b)
			fill(b, f, count)
			n, e := sample(1)
			for b.Loop() {
				fn(b, f, n, e)
			}
		})
	}
}
