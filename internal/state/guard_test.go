package state

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/flock"
)

func TestBridgeGuards(t *testing.T) {
	t.Parallel()
	ctx, d := t.Context(), New(t.TempDir())
	if _, err := d.LockBridge(ctx, "br0", unix.LOCK_SH, OnlyExisting); !errors.Is(err, ErrNotFound) {
		t.Fatalf("of a bridge without guards: %v", err)
	}
	g := Guard{Network: "n", ID: "1f", Rules: []byte(`{"Internal":true}`)}
	b := mustLock(t, d, unix.LOCK_EX)
	if err := b.Put(g); err != nil {
		t.Fatal(err)
	}
	b.Unlock()

	shared, also := mustLock(t, d, unix.LOCK_SH), mustLock(t, d, unix.LOCK_SH)
	if all, err := shared.Guards(); err != nil || len(all) != 1 || !also.Has(Guard{Network: "n", ID: "1f"}) || also.Has(Guard{Network: "n", ID: "2"}) {
		t.Errorf("guards %+v, %v", all, err)
	}
	also.Unlock()
	got := make(chan *Bridge)
	go func() { got <- mustLock(t, d, unix.LOCK_EX) }()
	select {
	case <-got:
		t.Fatal("an exclusive lock beside a shared one")
	case <-time.After(20 * time.Millisecond): // a sign, no proof
	}
	shared.Unlock()
	b = <-got
	if err := errors.Join(b.Delete(g), b.Delete(g), b.Remove()); err != nil {
		t.Fatal(err)
	}
	b.Unlock()
	if names, err := d.Bridges(); len(names) > 0 || err != nil {
		t.Errorf("left: %v, %v", names, err)
	}
}

func mustLock(t *testing.T, d *Dir, how int) *Bridge {
	t.Helper()
	b, err := d.LockBridge(t.Context(), "br0", how, Create)
	if err != nil {
		t.Error(err)
		return &Bridge{fd: -1}
	}
	return b
}

// The lock excludes, although each of its holders removes the directory.
func TestBridgeLockOfARemovedDirectory(t *testing.T) {
	t.Parallel()
	d := New(t.TempDir())
	var inside atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 50 {
				b := mustLock(t, d, unix.LOCK_EX)
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d holders of the lock", n)
				}
				inside.Add(-1)
				if err := b.Remove(); err != nil && !errors.Is(err, flock.ErrLocked) {
					t.Error(err)
				}
				b.Unlock()
			}
		})
	}
	wg.Wait()
}

// A writer that is killed between the two steps of replace leaves a draft, of a
// guard that no index lists. It goes with the directory.
func TestBridgeRemoveTakesDrafts(t *testing.T) {
	t.Parallel()
	d := New(t.TempDir())
	b := mustLock(t, d, unix.LOCK_EX)
	defer b.Unlock()
	if err := os.WriteFile(draft(filepath.Join(b.dir, Guard{Network: "net", ID: "1"}.file())), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Remove(); err != nil {
		t.Error(err)
	}
	if all, err := d.Bridges(); err != nil || len(all) > 0 {
		t.Errorf("left %v, %v", all, err)
	}
}

// A directory with a guard stays.
func TestBridgeRemoveSparesGuards(t *testing.T) {
	t.Parallel()
	d := New(t.TempDir())
	b := mustLock(t, d, unix.LOCK_EX)
	defer b.Unlock()
	if err := errors.Join(b.Put(Guard{Network: "net", ID: "1"}), b.Remove()); err != nil {
		t.Error(err)
	}
	if all, err := d.Bridges(); err != nil || len(all) != 1 {
		t.Errorf("bridges %v, %v", all, err)
	}
}
