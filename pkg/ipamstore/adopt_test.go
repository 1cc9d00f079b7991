package ipamstore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/pooldir"
)

func adoption(n int, addrs ...string) Adoption {
	return Adoption(request(n, addrs...))
}

// An adopted address is a lease as host-local writes it, and the index knows it.
func TestAdopt(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/29", "fd00::/64")})
	all := []Adoption{adoption(1, "10.1.0.2", "fd00::2"), adoption(2, "10.1.0.4"), adoption(3, "192.0.2.7" /* in no range */)}
	for _, want := range []int{3, 0} {
		if made, err := s.Adopt(t.Context(), all); len(made) != want || err != nil {
			t.Fatalf("adopted for %v, %v, want %d owners", made, err, want)
		}
	}
	want := map[string]string{"10.1.0.2": "c1\r\neth0", "fd00::2": "c1\r\neth0", "10.1.0.4": "c2\r\neth0", "192.0.2.7": "c3\r\neth0"}
	if diff := cmp.Diff(want, leaseFiles(t, s)); diff != "" {
		t.Errorf("lease files (-want +got):\n%s", diff)
	}
	if !checkIndex(t, s) {
		t.Error("the index is not in use")
	}
	got := []string{mustApply(t, s, request(1)), mustApply(t, s, request(4)), mustApply(t, s, request(5))}
	if diff := cmp.Diff([]string{"10.1.0.2 fd00::2", "10.1.0.3 fd00::3", "10.1.0.5 fd00::4"}, got); diff != "" {
		t.Errorf("the first owner and new ones (-want +got):\n%s", diff)
	}
	mustRemove(t, s, 2)
	if got := mustApply(t, s, request(6, "10.1.0.4")); !strings.HasPrefix(got, "10.1.0.4 ") {
		t.Errorf("after the release: %s, want 10.1.0.4", got)
	}
}

// An address with another holder stays with it; the rest is adopted.
func TestAdoptTaken(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/24")})
	mustApply(t, s, request(1, "10.1.0.2"))
	if err := os.Mkdir(filepath.Join(s.path(), "10.1.0.9"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.path(), "10.1.0.8"), nil, 0o600); err != nil { // as a crash leaves it
		t.Fatal(err)
	}
	made, err := s.Adopt(t.Context(), []Adoption{
		{Holder: Holder{Owner: Owner{"", "eth0"}}, Addrs: request(1, "10.1.0.7").Addrs},
		adoption(2, "10.1.0.2", "10.1.0.3"), adoption(3, "10.1.0.9"), adoption(4, "10.1.0.8"),
	})
	if diff := cmp.Diff([]Owner{owner(2), owner(4)}, made); diff != "" || !errors.Is(err, ErrTaken) || !errors.Is(err, ErrInvalid) {
		t.Errorf("%v, want ErrTaken and ErrInvalid; adopted for (-want +got):\n%s", err, diff)
	}
	for _, part := range []string{"10.1.0.2 is held by c1/eth0", "adopt addresses of c2/eth0", "10.1.0.9: its lease file cannot be read: not a regular file"} {
		if err != nil && !strings.Contains(err.Error(), part) {
			t.Errorf("no %q in: %v", part, err)
		}
	}
	want := map[string]string{"10.1.0.2": "c1\r\neth0", "10.1.0.3": "c2\r\neth0", "10.1.0.8": "c4\r\neth0"}
	if diff := cmp.Diff(want, leaseFiles(t, s)); diff != "" {
		t.Errorf("lease files (-want +got):\n%s", diff)
	}
	checkIndex(t, s)
}

func TestBlank(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/24")})
	step := func(what string, want bool, do func() error) {
		t.Helper()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if got := s.Blank(); got != want {
			t.Errorf("%s: blank %t, want %t", what, got, want)
		}
	}
	apply := func() error { _, err := s.Apply(t.Context(), request(1)); return err }
	remove := func() error { return s.Remove(context.Background(), owner(1)) }
	file := filepath.Join(s.path(), "10.1.0.2")
	step("new", true, func() error { return nil })
	step("a lease", false, apply)
	step("given back", false, remove)
	step("a lease again", false, apply)
	step("pool deleted", true, func() error { return os.RemoveAll(s.path()) })
	step("a lease after that", false, apply)
	step("lease file deleted", true, func() error { return os.Remove(file) })
	step("adopted", false, func() error { _, err := s.Adopt(t.Context(), []Adoption{adoption(1, "10.1.0.2")}); return err })
	step("index deleted", true, func() error { return os.RemoveAll(filepath.Join(s.conf.DataDir, pooldir.IndexDir)) })
	step("all deleted", true, func() error { return os.RemoveAll(s.conf.DataDir) })
}

func BenchmarkBlank(b *testing.B) {
	s := mustOpen(b, Config{Sets: sets("10.1.0.0/16")})
	for n := range 100 {
		mustApply(b, s, request(n))
	}
	for b.Loop() {
		if s.Blank() {
			b.Fatal("blank")
		}
	}
}

// Several owners give their addresses back at once, or none if one is no owner.
func TestRemoveSeveral(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/24")})
	for i := range 4 {
		mustApply(t, s, request(i))
	}
	if err := s.Remove(t.Context(), owner(0), owner(9), owner(2)); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, true, false, true} {
		if _, err := s.Lookup(t.Context(), owner(i)); (err == nil) != want {
			t.Errorf("owner %d: %v, want it to hold an address: %t", i, err, want)
		}
	}
	if err := s.Remove(t.Context(), owner(1), Owner{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("an owner without a name: %v, want %v", err, ErrInvalid)
	}
	if _, err := s.Lookup(t.Context(), owner(1)); err != nil {
		t.Errorf("owner 1, beside one that is refused: %v", err)
	}
}
