package responder

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/libnet-cni/libnet/internal/bpf"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// A call that removes takes with it all that a call left which failed, or was killed: the
// directories alone, or pins without the map of names.
func TestLeftovers(t *testing.T) {
	lntest.NeedsRoot(t, "loads BPF programs")
	lntest.IsolateHost(t)
	check(t, bpf.EnsureFS())
	ctx, r := t.Context(), New(t.TempDir(), &links{t: t})
	m := member("web", "c1", loopback, "10.9.0.2")
	at, err := r.dir()
	check(t, err)
	around := filepath.Dir(at)
	none := func() (Known, error) { return Known{}, nil }
	removals := map[string]func() error{
		"Remove":     func() error { return r.Remove(ctx, &m, false) },
		"RemoveHost": func() error { return r.RemoveHost(ctx, &m, func() (bool, error) { return true, nil }) },
		"Tidy":       func() error { return r.Tidy(ctx) },
		"Strays":     func() error { _, err := r.Strays(ctx, true, none); return err },
	}
	leftovers := map[string]func(){
		"the directory around": func() { check(t, os.Mkdir(around, 0o700)) },
		"directories":          func() { check(t, os.MkdirAll(at, 0o700)) },
		"all but the names": func() {
			put(t, r, m)
			check(t, os.Remove(filepath.Join(at, namesPin)))
		},
	}
	for what, leave := range leftovers {
		for name, remove := range removals {
			leave()
			if err := r.Verify(ctx, &m); !errors.Is(err, ErrDifferent) {
				t.Errorf("%s: Verify says %v, want %v", what, err, ErrDifferent)
			}
			if all, err := r.Strays(ctx, false, none); len(all) > 0 || err != nil {
				t.Errorf("%s: strays %v: %v", what, all, err)
			}
			if _, err := os.Stat(around); err != nil {
				t.Errorf("%s: a call that looks changed something: %v", what, err)
			}
			check(t, remove())
			if _, err := os.Stat(around); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %s left %s (%v)", what, name, around, err)
				_ = removeDir(at)
			}
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
