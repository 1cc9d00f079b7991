package ipamstore

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alexflint/go-filemutex"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/allocator"

	"github.com/libnet-cni/libnet/internal/pooldir"
)

// A lease of either store is one for the other.
func TestHostLocalSharesLeases(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/29")})
	h := newHostLocal(t, s)
	ours := mustApply(t, s, request(1))
	if got := fmt.Sprint(h.GetByID("c1", "eth0")); !h.FindByID("c1", "eth0") || got != "["+ours+"]" {
		t.Errorf("host-local finds %s, want %s", got, ours)
	}
	if last, err := h.LastReservedIP("0"); err != nil || last.String() != ours {
		t.Errorf("host-local goes on after %v, %v, want %s", last, err, ours)
	}
	h.add(t, owner(2), "10.1.0.3")
	if got := mustApply(t, s, request(2)); got != "10.1.0.3" {
		t.Errorf("the owner of a lease of host-local has %s", got)
	}
	if got := mustApply(t, s, request(3)); got != "10.1.0.4" {
		t.Errorf("a new owner has %s", got)
	}
	h.del(t, owner(1))
	mustRemove(t, s, 2)
	if err := s.Verify(t.Context(), owner(1), nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("after host-local's DEL: %v", err)
	}
	if h.FindByID("c2", "eth0") {
		t.Error("host-local finds an address that we released")
	}
	checkIndex(t, s)
}

// The lock of either store keeps the other out.
func TestHostLocalSharesLock(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/29"), LockTimeout: 50 * time.Millisecond})
	h := newHostLocal(t, s)
	err := h.locked(func() error {
		_, err := s.Apply(t.Context(), request(1))
		return err
	})
	if !errors.Is(err, ErrLocked) || !strings.HasSuffix(err.Error(), "; held by this process") {
		t.Errorf("while host-local has the lock: %v", err)
	}
	s.conf.LockTimeout = time.Minute
	mustApply(t, s, request(1))
	m, err := filemutex.New(filepath.Join(s.path(), pooldir.LockFile))
	if err != nil {
		t.Fatal(err)
	}
	err = s.do(t.Context(), making, func(*session) error { return m.TryLock() })
	if !errors.Is(err, filemutex.AlreadyLocked) {
		t.Errorf("host-local gets the lock that we have: %v", err)
	}
	if err := errors.Join(m.TryLock(), m.Close()); err != nil {
		t.Error(err)
	}
}

// The allocator of host-local and ours lease at the same time out of one range
// until it is full: each address has one owner.
func TestHostLocalAtOnce(t *testing.T) {
	t.Parallel()
	const each, workers = 30, 4 // of each kind
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/24"), LockTimeout: time.Minute})
	var mu sync.Mutex
	owners := map[string]string{}
	note := func(addr, owner string) {
		mu.Lock()
		defer mu.Unlock()
		if other, taken := owners[addr]; taken {
			t.Errorf("%s is leased to %s and to %s", addr, other, owner)
		}
		owners[addr] = owner
	}
	var wg sync.WaitGroup
	for w := range workers {
		h := newHostLocal(t, s)
		wg.Go(func() {
			for i := range each {
				if l, err := s.Apply(t.Context(), request(w*each+i)); err != nil {
					t.Error(err)
				} else {
					note(show(l), fmt.Sprint("ours ", w, i))
				}
			}
		})
		wg.Go(func() {
			subnet, err := types.ParseCIDR("10.1.0.0/24")
			if err != nil {
				t.Error(err)
				return
			}
			ranges := allocator.RangeSet{{Subnet: types.IPNet(*subnet)}}
			if err := ranges.Canonicalize(); err != nil {
				t.Error(err)
				return
			}
			theirs := allocator.NewIPAllocator(&ranges, h.Store, 0)
			for i := range each {
				if c, err := theirs.Get(fmt.Sprint("h", w*each+i), "eth0", nil); err != nil {
					t.Error(err)
				} else {
					note(c.Address.IP.String(), fmt.Sprint("host-local ", w, i))
				}
			}
		})
	}
	wg.Wait()
	if files := leaseFiles(t, s); len(files) != len(owners) || len(files) != 2*workers*each {
		t.Errorf("%d lease files, %d leases, want %d", len(files), len(owners), 2*workers*each)
	}
	checkIndex(t, s)
}
