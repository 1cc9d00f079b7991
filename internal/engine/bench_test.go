package engine

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
)

// BenchmarkEngine is ADD, CHECK and DEL of one container with masquerade and a
// published port, without CNI and without a process, while others are there.
func BenchmarkEngine(b *testing.B) {
	for _, present := range []int{0, 300} {
		b.Run(fmt.Sprintf("present=%d", present), func(b *testing.B) {
			n := benchNetwork(b)
			for i := range present {
				if _, err := n.Attach(b.Context(), benchSandbox(b, n, fmt.Sprint("present", i)), benchPort(20000+i)); err != nil {
					b.Fatal(err)
				}
			}
			sb := benchSandbox(b, n, "timed")
			var e *Endpoint
			took := map[string][]time.Duration{}
			run := func(verb string, fn func() error) {
				start := time.Now()
				if err := fn(); err != nil {
					b.Fatalf("%s: %v", verb, err)
				}
				took[verb] = append(took[verb], time.Since(start))
			}
			for b.Loop() {
				run("add", func() (err error) { e, err = n.Attach(b.Context(), sb, benchPort(8080)); return err })
				run("verify", func() error { return e.Verify(b.Context()) })
				run("del", func() error { return n.Remove(b.Context(), e.ID()) })
			}
			for verb, ds := range took {
				slices.Sort(ds)
				b.ReportMetric(float64(ds[len(ds)/2]), verb+"-p50-ns/op")
			}
		})
	}
}

func benchPort(port int) EndpointOption {
	return WithPorts(model.PortMapping{HostPort: port, ContainerPort: 80})
}

func benchNetwork(b *testing.B) *Network {
	b.Helper()
	lntest.Isolate(b)
	dir := b.TempDir()
	c, err := New(WithStateDir(filepath.Join(dir, "state")), WithDataDir(filepath.Join(dir, "leases")), WithNetnsDir(filepath.Join(dir, "netns")))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	n, err := c.NewNetwork(b.Context(), "bridge", "bench", WithSubnet(netip.MustParsePrefix("10.50.0.0/16")), WithMasquerade())
	if err != nil {
		b.Fatal(err)
	}
	return n
}

func benchSandbox(b *testing.B, n *Network, id string) *Sandbox {
	b.Helper()
	sb, err := n.c.NewSandbox(b.Context(), id)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := unix.Unmount(sb.Path(), unix.MNT_DETACH); err != nil { // the kernel removes the rest at once
			b.Error(err)
		}
	})
	return sb
}
