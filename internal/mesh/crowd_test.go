package mesh

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/balancer"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/registry/etcd"
	"github.com/libnet-cni/libnet/internal/service"
)

// crowd are hosts of one etcd. Each has a connection, a session and a Mesh of its own, and decides for
// itself to which containers it leads the connections of a service.
type crowd struct {
	t       *testing.T
	etcd    *lntest.Etcd
	keys    *clientv3.Client
	ctx     context.Context
	running sync.WaitGroup
	open    controllers // of the hosts that have no kernel to themselves: they change nothing by it
	decided chan decision

	mu    sync.Mutex
	ended map[string]int // sessions, by the error
	hosts map[string]overlay.View
}

// decision is what a host leads the connections of a service to.
type decision struct {
	host string
	to   balancer.Followed
	at   time.Time
}

// newCrowd starts etcd; the hosts end with the test.
func newCrowd(t *testing.T, most int) *crowd {
	t.Helper()
	c := &crowd{t: t, open: controllers{}, decided: make(chan decision, 8*most), ended: map[string]int{}, hosts: map[string]overlay.View{}}
	c.etcd = lntest.NewEtcd(t, []string{"127.0.30.1"})[0]
	c.etcd.Start()
	c.etcd.Await()
	ctx, cancel := context.WithCancel(t.Context())
	c.ctx = ctx
	t.Cleanup(func() { cancel(); c.running.Wait(); c.open.close() })
	var err error
	if c.keys, err = clientv3.New(clientv3.Config{Endpoints: []string{c.etcd.URL}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.keys.Close() })
	return c
}

// write puts keys below the prefix into etcd.
func (c *crowd) write(values map[string]string) {
	c.t.Helper()
	const atOnce = 100 // etcd takes 128
	for some := range slices.Chunk(slices.Sorted(maps.Keys(values)), atOnce) {
		var puts []clientv3.Op
		for _, key := range some {
			puts = append(puts, clientv3.OpPut(etcd.DefaultPrefix+"/"+key, values[key]))
		}
		if _, err := c.keys.Txn(c.ctx).Then(puts...).Commit(); err != nil {
			c.t.Fatal(err)
		}
	}
}

// live and hold are how long the leases of a host last.
const live, hold = 5 * time.Minute, time.Hour

// announce writes what a host that joins would write, as if its agent had been there before: each
// that joins as a new one is told to all others.
func (c *crowd) announce(name string, address netip.Addr) {
	c.t.Helper()
	var puts []clientv3.Op
	put := func(key, value string, lease clientv3.LeaseID) {
		puts = append(puts, clientv3.OpPut(etcd.DefaultPrefix+"/"+key, value, clientv3.WithLease(lease)))
	}
	self := fmt.Sprintf(`{"node":%q,"instance":%q}`, name, name)
	var leases []clientv3.LeaseID
	for _, d := range []time.Duration{live, hold} {
		lease, err := c.keys.Grant(c.ctx, int64(d.Seconds()))
		if err != nil {
			c.t.Fatal(err)
		}
		leases = append(leases, lease.ID)
	}
	put("live/nodes/"+name, self, leases[0])
	put("live/addresses/"+address.String(), self, leases[0])
	put("holds/"+name, fmt.Sprintf(`{"seconds":%d}`, int64(hold.Seconds())), leases[1])
	put("nodes/"+name, fmt.Sprintf(`{"address":%q}`, address), 0)
	if _, err := c.keys.Txn(c.ctx).Then(puts...).Commit(); err != nil {
		c.t.Fatal(err)
	}
}

// told is what a host tells the others of its containers. It hears of theirs by its Mesh.
type told struct {
	*Mesh
	mu      sync.Mutex
	own     map[overlay.NamedID]overlay.Named
	news    []overlay.Named
	changed chan struct{}
}

func (h *told) Own(all bool) (these []overlay.Named) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if these, h.news = h.news, nil; all {
		these = slices.Collect(maps.Values(h.own))
	}
	return these
}

func (h *told) Changed() <-chan struct{} { return h.changed }

// set has containers come, or go if they have no names.
func (h *told) set(these ...overlay.Named) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, one := range these {
		if delete(h.own, one.NamedID); len(one.Names) > 0 {
			h.own[one.NamedID] = one
		}
		h.news = append(h.news, one)
	}
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// join starts the session of a host, and has it decide by decide.
func (c *crowd) join(name string, address netip.Addr, dir string, decide func(*Mesh)) *told {
	r := etcd.New(etcd.Config{
		Endpoints: []string{c.etcd.URL}, Live: live, Hold: hold,
		Self: etcd.Self{Name: name, Address: address, Instance: name}, Uptime: func() int64 { return 1000 },
	})
	m := New(Config{Node: name, Registry: r, Log: slog.New(slog.DiscardHandler)})
	m.Keep([]Network{{Name: "net1", StateDir: dir, Device: "br"}})
	h := &told{Mesh: m, own: map[overlay.NamedID]overlay.Named{}, changed: make(chan struct{}, 1)}
	r.Exchange(h)
	r.Serve(m)
	seen := func(v overlay.View) {
		m.Seen(v)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.hosts[name] = v
	}
	c.running.Go(func() {
		for c.ctx.Err() == nil {
			err := r.Session(c.ctx, func() []overlay.Known { return nil }, seen)
			c.mu.Lock()
			c.ended[strings.ReplaceAll(fmt.Sprint(err), name, "w…")]++
			c.mu.Unlock()
			select {
			case <-c.ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	c.running.Go(func() { decide(m) })
	return h
}

// decide is what a host without a kernel of its own does of Run: all but the change of the kernel, and
// of the records, which is the same for all hosts and is done by program.
func (c *crowd) decide(m *Mesh) {
	c.each(m, c.open, func(t task) error {
		service.Assign(sharesOf(t.Followed))
		return nil
	})
}

// program is decide with the change of the kernel, in a network namespace of its own.
func (c *crowd) program(m *Mesh) {
	runtime.LockOSThread() // the thread ends with it
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		c.t.Error(err)
		return
	}
	open := controllers{}
	defer open.close()
	c.each(m, open, func(t task) error {
		did := outcome{errs: map[key]error{}, revision: map[key]int64{}, named: map[string]bool{}}
		m.follow(c.ctx, open, []task{t}, &did)
		return did.errs[t.key]
	})
}

// each tells of each decision of a host, after do.
func (c *crowd) each(m *Mesh, open controllers, do func(task) error) {
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-m.look:
		}
		todo, _, _ := m.work()
		for k := range todo {
			t, is, err := m.prepare(c.ctx, open, k, &outcome{})
			if err == nil && is {
				err = do(t)
			}
			if err != nil && c.ctx.Err() == nil {
				c.t.Errorf("%s: %v", m.conf.Node, err)
				return
			}
			if !is {
				continue
			}
			select {
			case c.decided <- decision{m.conf.Node, t.Followed, time.Now()}:
			case <-c.ctx.Done():
			}
		}
	}
}

// sharesOf are the backends among which connections are divided.
func sharesOf(f balancer.Followed) (all []service.Share) {
	for _, b := range f.Others {
		if w := f.Weight(b.ContainerID); w > 0 {
			all = append(all, service.Share{Key: b.Key(), Weight: w})
		}
	}
	return all
}

// await waits until so many hosts have decided on a service by a list of containers that has one, or
// has it no more, and returns how long each took.
func (c *crowd) await(name, container string, has bool, hosts int, start time.Time) map[string]time.Duration {
	c.t.Helper()
	took := map[string]time.Duration{}
	is := func(b service.Backend) bool { return b.ContainerID == container }
	for patience := time.After(2 * time.Minute); len(took) < hosts; {
		select {
		case d := <-c.decided:
			if d.to.Name == name && slices.ContainsFunc(d.to.Others, is) == has {
				if _, again := took[d.host]; !again { // one whose session began again decides twice
					took[d.host] = d.at.Sub(start)
				}
			}
		case <-patience:
			c.t.Fatalf("%d of %d hosts have followed the change of %s; sessions that ended: %v", len(took), hosts, name, c.endings())
		}
	}
	return took
}

// awaitView waits until the views of all hosts are as wanted.
func (c *crowd) awaitView(about string, hosts int, is func(overlay.View) bool) {
	c.t.Helper()
	done := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		n := 0
		for _, v := range c.hosts {
			if is(v) {
				n++
			}
		}
		return n >= hosts
	}
	if !lntest.Await(2*time.Minute, done) {
		c.t.Fatalf("%s: not all of %d hosts know of it; sessions that ended: %v", about, hosts, c.endings())
	}
}

// endings are the sessions that ended, by the error.
func (c *crowd) endings() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.ended)
}
