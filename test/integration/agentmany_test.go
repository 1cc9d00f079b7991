package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
)

// manyPeers is how many hosts there are beside the one with an agent.
const manyPeers = 1000

// memoryBound is what an agent may have with manyPeers, in bytes.
const memoryBound = 64 << 20

// TestAgentMany has an agent start among a thousand hosts, and one more come.
func TestAgentMany(t *testing.T) {
	got := measureMany(t)
	t.Logf("%+v", got)
	if got.memory > memoryBound {
		t.Errorf("%d peers: %d bytes of memory, want %d", manyPeers, got.memory, memoryBound)
	}
}

// BenchmarkAgentMany tells how long it takes: make bench BENCH=agent.
func BenchmarkAgentMany(b *testing.B) {
	var all figures
	n := 0
	for range b.N {
		m := measureMany(b)
		all.cold += m.cold
		all.onePeer += m.onePeer
		all.memory = max(all.memory, m.memory)
		n++
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(all.cold.Seconds()*1000/float64(n), "ms-cold")
	b.ReportMetric(all.onePeer.Seconds()*1000/float64(n), "ms-one-more")
	b.ReportMetric(float64(all.memory)/(1<<20), "MiB")
}

type figures struct {
	cold, onePeer time.Duration
	memory        int // the most it has had, in bytes
}

func measureMany(t testing.TB) (m figures) {
	t.Helper()
	a := newAgents(t, 1)
	keys := map[string]any{"subnet": []string{"10.80.0.0/12", "fd80::/48"}}
	a.configure(0, "h1", keys)
	c := a.client()
	a.start("h1") // it agrees on the terms
	a.awaitPeers("h1", 0)
	a.procs["h1"].stop(t)
	a.cutTunnel("h1")
	a.check(os.RemoveAll("/run/libnet-h1"))
	for i := range manyPeers {
		a.invent(c, i)
	}
	start := time.Now()
	a.start("h1")
	a.awaitPeers("h1", manyPeers)
	m.cold = time.Since(start)
	if n := a.tunnelRoutes("h1"); n != 2*manyPeers {
		t.Errorf("%d routes, want %d", n, 2*manyPeers)
	}
	watch := a.watchRoutes("h1")
	const tries = 3 // what else the machine does is not our time
	for i := range tries {
		time.Sleep(300 * time.Millisecond) // a look at our own last changes is over
		start = time.Now()
		last := a.invent(c, manyPeers+i)
		for r := range watch {
			if r.Dst != nil && r.Dst.String() == last {
				break
			}
		}
		if took := time.Since(start); i == 0 || took < m.onePeer {
			m.onePeer = took
		}
		a.awaitPeers("h1", manyPeers+i+1)
	}
	m.memory = a.memory("h1")
	return m
}

// client talks to etcd from where etcd is.
func (a *agents) client() *clientv3.Client {
	a.t.Helper()
	ns, err := os.Open(netnsPath(etcdHost))
	a.check(err)
	dial := func(_ context.Context, addr string) (conn net.Conn, err error) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // never unlocked
			if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
				conn, err = net.DialTimeout("tcp", addr, time.Second)
			}
		}()
		<-done
		return conn, err
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{a.etcd.URL}, Logger: zap.NewNop(), DialOptions: []grpc.DialOption{grpc.WithContextDialer(dial)}})
	a.check(err)
	a.t.Cleanup(func() { _ = errors.Join(c.Close(), ns.Close()) })
	return c
}

// invent writes what a host's agent would, and returns its IPv4 block. What h1
// chooses by its name lies elsewhere.
func (a *agents) invent(c *clientv3.Client, i int) string {
	a.t.Helper()
	name := fmt.Sprintf("n%04d", i)
	addr := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
	v4, v6 := fmt.Sprintf("10.%d.%d.0/24", 88+i>>8, i&255), fmt.Sprintf("fd80:0:0:%x::/64", 0x8000+i)
	live := fmt.Sprintf(`{"node":%q,"instance":%q}`, name, name)
	const p = "/libnet/v1/"
	ctx, cancel := context.WithTimeout(context.Background(), agentPatience)
	defer cancel()
	_, err := c.Txn(ctx).Then(
		clientv3.OpPut(p+"nodes/"+name, fmt.Sprintf(`{"address":%q}`, addr)),
		clientv3.OpPut(p+"holds/"+name, `{"seconds":0}`),
		clientv3.OpPut(p+"live/nodes/"+name, live), clientv3.OpPut(p+"live/addresses/"+addr.String(), live),
		clientv3.OpPut(p+"networks/net0/blocks/"+v4, fmt.Sprintf(`{"node":%q}`, name)),
		clientv3.OpPut(p+"networks/net0/blocks/"+v6, fmt.Sprintf(`{"node":%q}`, name)),
	).Commit()
	a.check(err)
	return v4
}

func (a *agents) tunnelRoutes(host string) (n int) {
	a.t.Helper()
	vx := a.tunnelOf(host)
	a.in(netnsPath(host), func() {
		all, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{LinkIndex: a.link(vx).Attrs().Index}, netlink.RT_FILTER_OIF)
		a.check(err)
		for _, r := range all {
			if r.Protocol == 108 {
				n++
			}
		}
	})
	return n
}

// watchRoutes tells of routes that come to a host.
func (a *agents) watchRoutes(host string) <-chan netlink.RouteUpdate {
	a.t.Helper()
	events, done := make(chan netlink.RouteUpdate, 100), make(chan struct{})
	a.in(netnsPath(host), func() { a.check(netlink.RouteSubscribe(events, done)) })
	a.t.Cleanup(func() { close(done) })
	return events
}

// memory is the most that a host's agent has had resident, in bytes.
func (a *agents) memory(host string) int { return a.memoryOf(a.procs[host].cmd.Process.Pid) }

func (a *agents) memoryOf(pid int) int {
	a.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	a.check(err)
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			a.check(err)
			return kib << 10
		}
	}
	a.t.Fatal("no VmHWM")
	return 0
}
