package fastpath

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/bpf"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/netlink"
)

// linkless has no filters: the pins are made without links.
type linkless struct{}

func (linkless) Filter(int, int, netlink.Filter) error      { return nil }
func (linkless) Filtered(int, netlink.Filter) (bool, error) { return false, nil }
func noLink(int) (bool, error)                              { return false, nil }
func unknown(int) (bool, error)                             { return false, unix.EIO }

// A call that removes takes with it all that a call left which failed, or was killed: the
// directories alone, some of the pins, or all of them.
func TestLeftovers(t *testing.T) {
	lntest.NeedsRoot(t, "loads BPF programs")
	lntest.IsolateHost(t)
	ctx, p := t.Context(), New(linkless{})
	removals := map[string]func() error{
		"Remove": func() error { return p.Remove(ctx, 7) },
		"Sweep":  func() error { return p.Sweep(ctx, noLink) },
	}
	at, err := dir()
	check(t, err)
	around := filepath.Dir(at)
	leftovers := map[string]func(){
		"the directory around": func() { check(t, os.Mkdir(around, 0o700)) },
		"directories":          func() { check(t, os.MkdirAll(at, 0o700)) },
		"flows": func() {
			check(t, p.Put(ctx, Link{Index: 7}))
			pins, err := os.ReadDir(at)
			check(t, err)
			for _, pin := range pins {
				if pin.Name() != "flows" {
					check(t, os.Remove(filepath.Join(at, pin.Name())))
				}
			}
		},
		"all": func() { check(t, p.Put(ctx, Link{Index: 7})) },
	}
	check(t, bpf.EnsureFS())
	for what, leave := range leftovers {
		for name, remove := range removals {
			leave()
			if err := p.Verify(ctx, Link{Index: 8}); !errors.Is(err, ErrDifferent) {
				t.Errorf("%s: Verify says %v, want %v", what, err, ErrDifferent)
			}
			check(t, remove())
			if _, err := os.Stat(around); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %s left %s (%v)", what, name, around, err)
				_ = removeDir(at)
			}
		}
	}
}

// Of a link of which it is not known whether it is there the entry stays, and with it the pins.
func TestSweepKeepsWhatIsNotKnown(t *testing.T) {
	lntest.NeedsRoot(t, "loads BPF programs")
	lntest.IsolateHost(t)
	ctx, p := t.Context(), New(linkless{})
	check(t, p.Put(ctx, Link{Index: 7}))
	if err := p.Sweep(ctx, unknown); !errors.Is(err, unix.EIO) {
		t.Errorf("Sweep says %v, want %v", err, unix.EIO)
	}
	m, err := open(ctx, false)
	check(t, err)
	defer m.close()
	check(t, m.links.Lookup(indexKey(7), make([]byte, linkSize)))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A VXLAN device that an earlier release put is told from one of which something is missing.
func TestEarlierRelease(t *testing.T) {
	lntest.NeedsRoot(t, "loads BPF programs")
	lntest.IsolateHost(t)
	ctx, p := t.Context(), New(present{})
	l := Link{Index: 7}
	check(t, p.Put(ctx, l))
	l.Tunnel = &Tunnel{VNI: 5, Port: 4789, Uplink: 1} // the loopback interface
	if err := p.Verify(ctx, l); !errors.Is(err, ErrEarlier) {
		t.Errorf("of an earlier release: Verify says %v, want %v", err, ErrEarlier)
	}
	check(t, p.Put(ctx, l))
	check(t, p.Verify(ctx, l))
	at, err := dir()
	check(t, err)
	check(t, os.Remove(filepath.Join(at, tunnelsPin)))
	if err := p.Verify(ctx, l); !errors.Is(err, ErrDifferent) {
		t.Errorf("without the map of tunnels: Verify says %v, want %v", err, ErrDifferent)
	}
	check(t, p.Put(ctx, l))
	l.Tunnel.Uplink = 0 // the address went
	check(t, p.Put(ctx, l))
	if pins, err := filepath.Glob(filepath.Join(at, uplinkPin+"*")); err != nil || len(pins) > 0 {
		t.Errorf("programs are still at the link that has no tunnel any more: %q, %v", pins, err)
	}
	check(t, p.Sweep(ctx, noLink))
}

// present has all filters.
type present struct{ linkless }

func (present) Filtered(int, netlink.Filter) (bool, error) { return true, nil }
