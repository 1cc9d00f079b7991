package integration

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// churnProbes is how many probes are sent in all worlds together: in make test, and
// with LIBNET_CHURN=full.
const churnProbes, churnProbesFull = 20_000, 200_000

// churnCycles is how often the container comes and goes in each world at least.
const churnCycles = 9

// TestChurn has the only container of a closed network come and go, its bridge too,
// while a machine outside and a container of another network send to its address
// all the time, each datagram and SYN a new flow, and one flow that was there before
// the first ADD. Not one packet reaches the container.
func TestChurn(t *testing.T) {
	t.Parallel()
	type world struct {
		mode, backend, filter string
	}
	var all []world
	for _, mode := range []string{"nat", "internal", "routed"} {
		for _, backend := range []string{"nftables", "iptables"} {
			all = append(all, world{mode, backend, "0"}, world{mode, backend, "1"})
		}
	}
	probes := int64(churnProbes)
	if os.Getenv("LIBNET_CHURN") == "full" {
		probes = churnProbesFull
	}
	var total, cycles atomic.Int64
	var wg sync.WaitGroup
	next := make(chan world)
	for range 2 {
		wg.Go(func() {
			for w := range next {
				t.Run(fmt.Sprintf("%s/%s/bridge-nf-call %s", w.mode, w.backend, w.filter), func(t *testing.T) {
					l := newMatrixLab(t, matrixWorld{one: "nat", two: w.mode, backend: w.backend})
					if !l.bridgeFilter("", w.filter) && w.filter == "1" {
						t.Skip("this kernel has no br_netfilter")
					}
					sent, n := l.churn(probes / int64(len(all)))
					total.Add(sent)
					cycles.Add(n)
				})
			}
		})
	}
	for _, w := range all {
		next <- w
	}
	close(next)
	wg.Wait()
	t.Logf("%d probes in %d cycles", total.Load(), cycles.Load())
}

// churn returns how many probes were sent, and how often the container came.
func (l *matrixLab) churn(share int64) (sent, cycles int64) {
	l.t.Helper()
	l.join("a", l.conf(0, l.world.one), "[]") // rules: conntrack is on
	conf := edit(l.t, l.conf(1, l.world.two), keys{"ipam.strategy": "lowest"})
	c := attachment("bridge-ln", "b", netnsPath("b"), conf)
	n := l.network(1)
	f := &flood{targets: []netip.Addr{churnAddr(n.gateway4), churnAddr(n.gateway6)}}
	seen := l.listen("b")
	stop := l.start(f, "world", "a")
	for ; cycles < churnCycles || f.sent.Load() < share; cycles++ {
		for _, verb := range []string{"ADD", "DEL"} {
			l.must(c.as(verb))
			f.goOn(l.t)
		}
		l.away(cycles, conf)
		f.goOn(l.t)
		if arrived := seen.all(); len(arrived) > 0 {
			l.t.Errorf("cycle %d: the container got what is kept out:", cycles)
			for _, what := range slices.Sorted(maps.Keys(arrived)) {
				l.t.Errorf("  %d × %s", arrived[what], what)
			}
			break
		}
	}
	l.collect(conf, "[]")
	sent = f.sent.Load()
	l.must(c.with(edit(l.t, l.conf(1, "none"), keys{"ipam.strategy": "lowest"})).as("ADD"))
	l.arrivesAll(seen)
	stop()
	return sent, cycles
}

// away is what becomes of the bridge between two containers: it goes by GC, or an
// admin takes it, or it stays, and with it the neighbour that nothing answers for.
func (l *matrixLab) away(cycle int64, conf string) {
	l.t.Helper()
	switch cycle % 3 {
	case 0:
		l.collect(conf, "[]")
	case 1:
		br, err := netlink.LinkByName(l.network(1).bridge)
		l.check(err)
		l.check(netlink.LinkDel(br))
	}
}

// churnAddr is the lowest address that network two gives.
func churnAddr(gateway string) netip.Addr {
	a := netip.MustParseAddr(gateway)
	b := a.AsSlice()
	b[len(b)-1] = 20
	if a.Is6() {
		b[len(b)-1] = 0x20
	}
	a, _ = netip.AddrFromSlice(b)
	return a
}

// arrivesAll shows that each kind of probe would have been seen: all of them reach
// the container of a network that keeps no client out.
func (l *matrixLab) arrivesAll(seen *arrivals) {
	l.t.Helper()
	for end := time.Now().Add(2 * lntest.WaitForAnswer); len(seen.all()) < churnKinds; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("with an open network only these arrive: %v", slices.Sorted(maps.Keys(seen.all())))
		}
	}
}
