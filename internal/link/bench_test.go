package link

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// timer collects durations and reports their median.
type timer map[string][]time.Duration

func (m timer) run(b *testing.B, name string, fn func() error) {
	start := time.Now()
	if err := fn(); err != nil {
		b.Fatal(err)
	}
	m[name] = append(m[name], time.Since(start))
}

func (m timer) report(b *testing.B) {
	b.ReportMetric(0, "ns/op")
	for name, ds := range m {
		slices.Sort(ds)
		b.ReportMetric(float64(ds[len(ds)/2].Microseconds()), name+"-p50-µs")
		b.ReportMetric(float64(ds[len(ds)*99/100].Microseconds()), name+"-p99-µs")
	}
}

// BenchmarkAttach compares an attachment with its floor: making and removing
// the bare veth with one end in the namespace.
func BenchmarkAttach(b *testing.B) {
	for _, tt := range []struct {
		name         string
		ports, addrs int
	}{{"v4", 0, 1}, {"dual", 0, 2}, {"dual-1000-ports", 1000, 2}} {
		b.Run(tt.name, func(b *testing.B) {
			h := newLinks(b)
			n := newNetns(b)
			br := mustBridge(b, h, testBridge())
			addPorts(b, h, br.Index, tt.ports)
			bare := pair{host: "bare", peer: "eth0", hostMAC: netlink.RandomMAC(), peerMAC: netlink.RandomMAC(), peerNS: n.FD(), mtu: 1500, master: br.Index}
			l := testLink(n)
			l.Addrs, l.Routes = l.Addrs[:tt.addrs], l.Routes[:tt.addrs]
			m := timer{}
			for b.Loop() {
				m.run(b, "ensure", func() error { _, err := h.EnsureBridge(b.Context(), testBridge()); return err })
				m.run(b, "bare-add", func() error { _, err := createPair(h.conn, bare); return err })
				m.run(b, "bare-del", func() error { return h.conn.DeleteLinkByName("bare") })
				m.run(b, "attach", func() error { _, err := h.Attach(b.Context(), l); return err })
				m.run(b, "verify", func() error { return h.Verify(b.Context(), l) })
				m.run(b, "detach", func() error { return h.Detach(b.Context(), Ref{Owner: l.Owner, HostName: l.HostName}) })
			}
			m.report(b)
		})
	}
}

func addPorts(b *testing.B, h *Links, bridge, ports int) {
	for i := range ports {
		p := pair{host: fmt.Sprint("p", i), peer: fmt.Sprint("q", i), hostMAC: netlink.RandomMAC(), peerMAC: netlink.RandomMAC(), peerNS: -1, mtu: 1500, master: bridge}
		if _, err := createPair(h.conn, p); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEnsureBridge is the case of every attachment but the first.
func BenchmarkEnsureBridge(b *testing.B) {
	h := newLinks(b)
	mustBridge(b, h, testBridge())
	for b.Loop() {
		mustBridge(b, h, testBridge())
	}
}
