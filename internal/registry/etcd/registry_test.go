package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

// Keys and values are those of docs/etcd.md, and nothing is left of a host that leaves.
func TestKeys(t *testing.T) {
	l := newLab(t, 1, 1)
	ctx := context.Background()
	c := l.conf(1)
	c.Self.Instance, c.Self.Version, c.Hold = "BOOT/NAMESPACE", "v0.1.0", 24*time.Hour
	n := newNaming()
	a := l.start(c, n)
	a.awaitMember("h1")
	a.agree("net1", terms("10.5.0.0/16", 24))
	block, err := a.claim()
	l.must(err)
	l.must(a.SetKeys(ctx, "net1", overlay.HostKeys{Keys: []overlay.EpochKey{{Epoch: 1, PublicKey: wireguard.Key{1}, Port: 61500}}, Sends: 1}))
	l.must(a.Rotate(ctx, "net1", overlay.KeyEpoch{}, 2))
	if err := a.Rotate(ctx, "net1", overlay.KeyEpoch{}, 2); !errors.Is(err, overlay.ErrTaken) {
		t.Errorf("the same epoch again: %v", err)
	}
	l.must(errors.Join(a.Evict(ctx, "h9"), a.Evict(ctx, "h8"), a.Admit(ctx, "h8")))
	n.set("6f2d1c9b4a70", "shop", "10.5.1.2")
	l.await("names in etcd", func() bool { return len(l.leased(a.keys.namedOf("net1", "h1"))) == 1 })
	services := l.makeService(a)
	got, err := l.client().Get(ctx, "/", clientv3.WithPrefix())
	l.must(err)
	chance := regexp.MustCompile(`"(lineage|cluster|publicKey)":"[0-9a-zA-Z+/=]+"`)
	leased := map[string]bool{"live": true, "holds": true, "names": true}
	var keys []string
	for _, kv := range got.Kvs {
		key, value := string(kv.Key), chance.ReplaceAllString(string(kv.Value), `"$1":"…"`)
		for as, is := range map[string]string{"10.5.1.0/24": block.String(), "10.5.9.0/24": netip.PrefixFrom(services, 24).Masked().String(), "10.5.9.1": services.String()} {
			key, value = strings.Replace(key, is, as, 1), strings.Replace(value, is, as, 1)
		}
		keys = append(keys, key+" "+value)
		if want := leased[strings.Split(key, "/")[3]]; want != (kv.Lease != 0) {
			t.Errorf("%s has lease %d", key, kv.Lease)
		}
	}
	slices.Sort(keys)
	if diff := cmp.Diff(documented(t), keys); diff != "" {
		t.Errorf("(-docs/etcd.md +etcd):\n%s", diff)
	}
	a.stop()
	l.must(errors.Join(a.Leave(ctx, "net1"), a.Forget(ctx)))
	_, err = l.client().Delete(ctx, a.keys.evicted("h9")) // it stays evicted without any host
	l.must(err)
	got, err = l.client().Get(ctx, "/", clientv3.WithPrefix())
	if err != nil || len(got.Kvs) != 0 {
		t.Errorf("left: %v, %v", got.Kvs, err)
	}
}

// documented returns the keys of docs/etcd.md with their values, in the order of
// etcd.
func documented(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile("../../../docs/etcd.md")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	value := ""
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.HasPrefix(cells[1], " `/libnet") {
			continue
		}
		if v := strings.Trim(cells[2], " `"); v != "the same" {
			value = v
		}
		all = append(all, strings.Trim(cells[1], " `")+" "+value)
	}
	slices.Sort(all)
	return all
}

// Of two living hosts with one name, or one address, the first is in; a
// restarted one is itself.
func TestTwins(t *testing.T) {
	l := newLab(t, 2, 1)
	a := l.start(l.conf(1))
	a.awaitMember("h1")
	name, addr := l.conf(1), l.conf(2)
	name.Self.Instance = "another"
	addr.Self.Address = a.conf.Self.Address
	for _, c := range []Config{name, addr} {
		twin := l.start(c)
		twin.awaitEnd(overlay.ErrTaken)
		twin.stop()
	}
	again := l.start(l.conf(1)) // as after kill -9: what it left is there
	again.awaitMember("h1")
	l.must(again.Quiet(context.Background()))
	l.start(name).awaitMember("h1")
}

// A host that has another address after a restart lets go of the old one.
func TestMoves(t *testing.T) {
	l := newLab(t, 9, 1)
	a := l.start(l.conf(1))
	a.awaitMember("h1")
	a.stop()
	moved, next := l.conf(1), l.conf(2)
	moved.Self.Address = netip.MustParseAddr("192.0.2.77")
	next.Self.Address = l.conf(1).Self.Address
	m := l.start(moved)
	m.await("new address", func(v overlay.View) bool { return v.Members["h1"].Address == moved.Self.Address })
	l.start(next).awaitMember("h2")
}

// Addresses that a host gets, or loses, beside the one that is its own are told while it is in
// touch, and its session goes on.
func TestOtherAddresses(t *testing.T) {
	l := newLab(t, 41, 1)
	var also atomic.Pointer[[]netip.Addr]
	c := l.conf(1)
	c.Also = func() []netip.Addr { return *also.Load() }
	is := func(want ...netip.Addr) func(overlay.View) bool {
		return func(v overlay.View) bool { return slices.Equal(v.Members["h1"].Also, want) && v.Members["h1"].Live }
	}
	one, other := netip.MustParseAddr("192.0.2.101"), netip.MustParseAddr("2001:db8::1")
	also.Store(&[]netip.Addr{one})
	a, b := l.start(c), l.start(l.conf(2))
	b.await("one more address", is(one))
	for _, now := range [][]netip.Addr{{one, other}, {other}, nil} {
		also.Store(&now)
		b.await(fmt.Sprint("addresses ", now), is(now...))
		a.await(fmt.Sprint("addresses ", now), is(now...))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.ended) > 0 {
		t.Errorf("sessions ended: %v", a.ended)
	}
}

// Whatever others do to what a living host announced, it is put back: each of
// its keys, removed, changed, or without its lease.
func TestOwnKeys(t *testing.T) {
	l := newLab(t, 16, 1)
	c := l.client()
	ctx := context.Background()
	a := l.start(l.conf(1))
	a.awaitMember("h1")
	k := keys{DefaultPrefix}
	for _, key := range []string{k.node("h1"), k.liveNode("h1"), k.liveAddr(l.conf(1).Self.Address), k.holds("h1")} {
		before, err := c.Get(ctx, key)
		l.must(err)
		want := before.Kvs[0]
		spoil := map[string]clientv3.Op{"removed": clientv3.OpDelete(key)}
		if key == k.node("h1") {
			spoil["changed"] = clientv3.OpPut(key, `{"address":"192.0.2.99"}`)
		} else {
			spoil["without its lease"] = clientv3.OpPut(key, string(want.Value))
		}
		for name, op := range spoil {
			_, err := c.Do(ctx, op)
			l.must(err)
			a.await(key+" again that was "+name, func(overlay.View) bool {
				got, err := c.Get(ctx, key)
				return err == nil && len(got.Kvs) == 1 && string(got.Kvs[0].Value) == string(want.Value) && (got.Kvs[0].Lease != 0) == (want.Lease != 0)
			})
		}
	}
}

// Hosts that race for blocks never have one twice, and the last one is had.
func TestRace(t *testing.T) {
	l := newLab(t, 3, 3)
	const hosts = 8
	agents := make([]*agent, hosts)
	for i := range agents {
		agents[i] = l.start(l.conf(i + 1))
	}
	var wg sync.WaitGroup
	for _, a := range agents { // all know each other, and the network is theirs
		for i := range hosts {
			a.awaitMember(fmt.Sprintf("h%d", i+1))
		}
		wg.Go(func() { a.agree("net1", terms("10.5.0.0/24", 27)) }) // eight blocks
	}
	wg.Wait()
	var mu sync.Mutex
	owner := map[netip.Prefix]string{}
	claim := func(a *agent) error {
		b, err := a.claim()
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if other, taken := owner[b]; taken {
			t.Errorf("%s is %s's and %s's", b, other, a.name)
		}
		owner[b] = a.name
		return nil
	}
	for range 2 { // the second time there is none left
		for _, a := range agents {
			wg.Go(func() {
				if err := claim(a); err != nil && !errors.Is(err, overlay.ErrFull) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	if len(owner) != 8 {
		t.Errorf("%d of 8 blocks are had: %v", len(owner), owner)
	}
}

// A network gets another VNI than the derived one if that is taken; one that is
// asked for is an error then.
func TestVNI(t *testing.T) {
	l := newLab(t, 4, 1)
	a := l.start(l.conf(1))
	a.awaitMember("h1")
	other := terms("10.6.0.0/16", 24)
	other.VNI = overlay.VNI("net1")
	a.agree("other", other)
	if v := a.agree("net1", terms("10.5.0.0/16", 24)); v.Networks["net1"].Terms.VNI != overlay.VNI("net1")+1 {
		t.Errorf("VNI %d, want the next", v.Networks["net1"].Terms.VNI)
	}
	if err := a.Agree(context.Background(), "third", other); !errors.Is(err, overlay.ErrTaken) || !strings.Contains(err.Error(), "other") {
		t.Errorf("a VNI of another network: %v", err)
	}
	second := l.start(l.conf(2))
	second.awaitMember("h1")
	if v := second.agree("net1", terms("10.7.0.0/16", 25)); v.Networks["net1"].Terms.Subnets[0].String() != "10.5.0.0/16" {
		t.Errorf("the second host's terms are in place of the first's: %+v", v.Networks["net1"].Terms)
	}
}

// A host that is away for longer than it holds its blocks loses them, as every
// watcher sees; one that is away for less does not, though it is not live. Back
// again, it sees what it lost.
func TestAbsence(t *testing.T) {
	l := newLab(t, 5, 1)
	ctx := context.Background()
	short, long := l.conf(1), l.conf(2)
	short.Hold = 4 * time.Second
	a, b, c := l.start(short), l.start(long), l.start(l.conf(3))
	for _, x := range []*agent{a, b, c} {
		x.awaitMember(x.name)
		x.agree("net1", terms("10.5.0.0/16", 24))
		if _, err := x.claim(); err != nil {
			t.Fatal(err)
		}
	}
	a.stop()
	b.stop()
	v := c.await("absence", func(v overlay.View) bool { return !v.Members["h1"].Holds && !v.Members["h2"].Live })
	if gone := v.Gone(); !slices.Equal(gone, []string{"h1"}) || len(v.Own("net1", "h1")) != 1 || !v.Members["h2"].Holds {
		t.Errorf("gone are %v: %+v", gone, v)
	}
	for _, node := range []string{"h1", "h2"} { // the second is refused
		freed, err := c.Reclaim(ctx, v, node)
		if want := map[string]int{"h1": 1, "h2": 0}[node]; err != nil || len(freed) != want {
			t.Errorf("%s: freed %v, %v, want %d", node, freed, err, want)
		}
	}
	v = c.await("reclaimed block", func(v overlay.View) bool { _, known := v.Members["h1"]; return !known })
	if len(v.Own("net1", "h1")) != 0 || len(v.Own("net1", "h2")) != 1 {
		t.Errorf("h1 has %v, h2 %v", v.Own("net1", "h1"), v.Own("net1", "h2"))
	}
	back := l.start(short)
	v = back.awaitMember("h1")
	if len(v.Own("net1", "h1")) != 0 || !v.Members["h1"].Holds || v.Until != 1004 {
		t.Errorf("back again: %v, until %d, %+v", v.Own("net1", "h1"), v.Until, v.Members["h1"])
	}
}

// A host that comes back while others reclaim has either all or is told: the entry that
// says it holds its blocks decides.
func TestReclaimOfHostThatIsBack(t *testing.T) {
	l := newLab(t, 6, 1)
	a, b := l.start(l.conf(1)), l.start(l.conf(2))
	a.awaitMember("h1")
	a.agree("net1", terms("10.5.0.0/16", 24))
	if _, err := a.claim(); err != nil {
		t.Fatal(err)
	}
	v := b.await("block", func(v overlay.View) bool { return len(v.Own("net1", "h1")) == 1 })
	stale := v.Members["h1"]
	stale.Holds = false
	v.Members = map[string]overlay.Member{"h1": stale}
	if freed, err := b.Reclaim(context.Background(), v, "h1"); err != nil || len(freed) != 0 {
		t.Errorf("freed %v, %v of a host that is there", freed, err)
	}
}

// Garbage in etcd is told, and keeps nothing else from being read.
func TestGarbage(t *testing.T) {
	l := newLab(t, 7, 1)
	c := l.client()
	for key, value := range map[string]string{
		"nodes/x": "{", "networks/n/terms": `{"vni":1}`, "networks/n/blocks/10.0.0.0": `{}`, "networks/n/blocks/10.5.1.0/24": `[]`, "what": "ever",
	} {
		if _, err := c.Put(context.Background(), DefaultPrefix+"/"+key, value); err != nil {
			t.Fatal(err)
		}
	}
	a := l.start(l.conf(1))
	if v := a.awaitMember("h1"); len(v.Problems) != 5 {
		t.Errorf("problems: %q, want 5", v.Problems)
	}
	if _, err := c.Delete(context.Background(), DefaultPrefix+"/what"); err != nil {
		t.Fatal(err)
	}
	a.await("fewer problems", func(v overlay.View) bool { return len(v.Problems) == 4 })
}
