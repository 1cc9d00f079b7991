package ipamstore

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/disk"

	"github.com/libnet-cni/libnet/internal/pooldir"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

func sets(subnets ...string) (out []RangeSet) {
	for _, s := range subnets {
		out = append(out, RangeSet{{Subnet: prefix(s)}})
	}
	return out
}

func mustOpen(t testing.TB, c Config) *Store {
	t.Helper()
	if c.Network == "" {
		c.Network = "net"
	}
	if c.DataDir == "" {
		c.DataDir = t.TempDir()
	}
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func owner(n int) Owner { return Owner{fmt.Sprintf("c%d", n), "eth0"} }

func request(n int, addrs ...string) Request {
	r := Request{Holder: Holder{Owner: owner(n), Netns: fmt.Sprintf("/run/netns/%d", n), NetnsID: fmt.Sprint(n), Workload: fmt.Sprintf("pod-%d", n)}}
	for _, a := range addrs {
		r.Addrs = append(r.Addrs, addr(a))
	}
	return r
}

func mustApply(t testing.TB, s *Store, r Request) string {
	t.Helper()
	l, err := s.Apply(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return show(l)
}

// show writes the addresses of leases, with a space between.
func show(leases []Lease) string {
	var out []string
	for _, l := range leases {
		out = append(out, l.Addr.Addr().String())
	}
	return strings.Join(out, " ")
}

func mustRemove(t testing.TB, s *Store, n int) {
	t.Helper()
	if err := s.Remove(t.Context(), owner(n)); err != nil {
		t.Fatal(err)
	}
}

// leaseFiles returns the lease files of the pool by name.
func leaseFiles(t testing.TB, s *Store) map[string]string {
	t.Helper()
	out := map[string]string{}
	list, err := os.ReadDir(s.path())
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, f := range list {
		if ownFile(f.Name()) || !f.Type().IsRegular() {
			continue
		}
		data, err := os.ReadFile(filepath.Join(s.path(), f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[f.Name()] = string(data)
	}
	return out
}

func (s *Store) index() string {
	return filepath.Join(s.conf.DataDir, pooldir.IndexDir, s.conf.Network)
}

// checkIndex fails the test if the index is trusted and wrong.
func checkIndex(t testing.TB, s *Store) (trusted bool) {
	t.Helper()
	err := s.do(t.Context(), making, func(x *session) error {
		now, err := x.dir.Mtime()
		if err != nil {
			return err
		}
		if !x.state.clean || !x.state.stamp.Equal(now) {
			return nil
		}
		trusted = true
		tab, err := x.scan()
		if err != nil {
			return err
		}
		for o, e := range tab.entries {
			got := tab.listed[o]
			if got == nil || got.Holder != e.Holder || len(got.addrs) != len(e.addrs) || !got.hasAll(e) {
				t.Errorf("index says of %v: %+v, the files %+v", o, got, e)
			}
		}
		if len(tab.listed) != len(tab.entries) || x.state.problems != tab.problems() {
			t.Errorf("index has %d owners, %d problems; the files %d, %d", len(tab.listed), x.state.problems, len(tab.entries), tab.problems())
		}
		checkBits(t, x, tab)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return trusted
}

func (e *entry) hasAll(o *entry) bool {
	for _, l := range o.addrs {
		if !slices.Contains(e.addrs, l) {
			return false
		}
	}
	return true
}

func checkBits(t testing.TB, x *session, tab *table) {
	t.Helper()
	resting, over, err := x.queued()
	if err != nil {
		t.Fatal(err)
	}
	want := map[netip.Addr]bool{}
	for _, a := range slices.Concat(resting, over, tab.barred) {
		want[a] = true
	}
	for _, e := range tab.entries {
		for _, l := range e.addrs {
			want[l.addr] = true
		}
	}
	got := 0
	for _, name := range tab.blocks {
		base, ok := parseBlockFile(name)
		if !ok {
			t.Fatal(name)
		}
		b, err := x.bits.load(base)
		if err != nil {
			t.Fatal(err)
		}
		got += int(b.taken(0, blockSize-1))
	}
	for a := range want {
		base, place := split(a)
		b, err := x.bits.load(base)
		if err != nil {
			t.Fatal(err)
		}
		if b.data[place/8]&(1<<(place%8)) == 0 {
			t.Errorf("%s is not marked", a)
		}
	}
	if got != len(want) {
		t.Errorf("%d addresses are marked, want %d", got, len(want))
	}
}

// hostLocal is the store of the reference plugin host-local, on our pool.
type hostLocal struct{ *disk.Store }

func newHostLocal(t testing.TB, s *Store) hostLocal {
	t.Helper()
	d, err := disk.New(s.conf.Network, s.conf.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return hostLocal{d}
}

// add is host-local's ADD of one address, under its lock.
func (h hostLocal) add(t testing.TB, o Owner, a string) {
	t.Helper()
	err := h.locked(func() error {
		if taken, err := h.Reserve(o.ContainerID, o.IfName, net.ParseIP(a), "0"); err != nil || !taken {
			return fmt.Errorf("reserve %s: %t, %w", a, taken, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// del is host-local's DEL, under its lock.
func (h hostLocal) del(t testing.TB, o Owner) {
	t.Helper()
	if err := h.locked(func() error { return h.ReleaseByID(o.ContainerID, o.IfName) }); err != nil {
		t.Fatal(err)
	}
}

func (h hostLocal) locked(fn func() error) error {
	if err := h.Lock(); err != nil {
		return err
	}
	return errors.Join(fn(), h.Unlock())
}

// clock is a Store's clock that stands still until it is moved.
func clock(s *Store) *time.Duration {
	now := time.Hour
	s.uptime = func() time.Duration { return now }
	return &now
}
