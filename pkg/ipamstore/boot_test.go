package ipamstore

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// reboot returns s as a process of the next boot sees it.
func reboot(t *testing.T, s *Store, boot string, mod ...func(*Config)) *Store {
	t.Helper()
	c := s.conf
	c.BootID = boot
	for _, m := range mod {
		m(&c)
	}
	return mustOpen(t, c)
}

func TestReboot(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/24"), BootID: "a", Sticky: true, Cooldown: time.Minute})
	for i := range 5 {
		mustApply(t, s, request(i))
	}
	mustRemove(t, s, 4)
	b := reboot(t, s, "b")
	if err := b.Verify(t.Context(), owner(1), nil); err != nil {
		t.Errorf("before the first apply leases stay: %v", err)
	}
	if u, err := b.Status(t.Context()); err != nil || u.Sets[0].Held != 0 {
		t.Errorf("status counts what will be void: %+v, %v", u, err)
	}
	mustRemove(t, b, 0)
	if got := mustApply(t, b, request(3)); got != "10.1.0.5" {
		t.Errorf("workload got %s", got)
	}
	if files := leaseFiles(t, b); len(files) != 1 {
		t.Errorf("leases %v", files)
	}
	checkIndex(t, b)
}

// host-local has worked in the directory since the reboot: only what our index
// lists is void.
func TestRebootForeign(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/24"), BootID: "a"})
	for i := range 3 {
		mustApply(t, s, request(i))
	}
	hl := newHostLocal(t, s)
	hl.add(t, owner(9), "10.1.0.9")
	hl.del(t, owner(1))
	hl.add(t, owner(1), "10.1.0.3") // the same container, started again
	b := reboot(t, s, "b")
	mustApply(t, b, request(20))
	files := leaseFiles(t, b)
	if len(files) != 3 || files["10.1.0.2"] != "" || files["10.1.0.9"] == "" || files["10.1.0.3"] == "" {
		t.Errorf("leases %q", files)
	}
	checkIndex(t, b)
}

func TestRebootKeep(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/24"), BootID: "a", RebootPolicy: RebootKeep})
	first := mustApply(t, s, request(1))
	b := reboot(t, s, "b", func(c *Config) { c.Dead = func(h Holder) bool { return h.NetnsID != "" } })
	mustApply(t, b, request(2))
	if err := b.Verify(t.Context(), owner(1), []netip.Addr{addr(first)}); err != nil {
		t.Error(err)
	}
	list, err := b.List(t.Context())
	if err != nil || len(list) != 2 || list[0].NetnsID != "" || list[0].Workload != "pod-1" {
		t.Errorf("%+v, %v", list, err)
	}
	checkIndex(t, b)
}

// A directory of host-local's is honoured, but for leases that are older than
// the machine's start.
func TestHeritage(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/24")})
	start := time.Now().Add(-time.Hour)
	s.bootStart = func() time.Time { return start }
	hl := newHostLocal(t, s)
	hl.add(t, owner(1), "10.1.0.2")
	hl.add(t, owner(2), "10.1.0.3")
	hl.add(t, owner(3), "10.1.0.4")
	old := start.Add(-time.Minute)
	if err := os.Chtimes(filepath.Join(s.path(), "10.1.0.3"), old, old); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), owner(3), nil); err != nil {
		t.Error(err)
	}
	mustRemove(t, s, 3)
	if got := mustApply(t, s, request(1)); got != "10.1.0.2" {
		t.Errorf("adopted %s", got)
	}
	if got := mustApply(t, s, request(4)); got != "10.1.0.5" {
		t.Errorf("next is %s", got)
	}
	if files := leaseFiles(t, s); len(files) != 2 {
		t.Errorf("leases %v", files)
	}
	checkIndex(t, s)
}

// host-local has leased the same address to the same container again, in a
// namespace we know nothing of: the old one's death says nothing of it.
func TestRestart(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/30"), Dead: func(h Holder) bool { return h.NetnsID == "1" }})
	a := mustApply(t, s, request(1))
	hl := newHostLocal(t, s)
	hl.del(t, owner(1))
	hl.add(t, owner(1), a)
	if _, err := s.Apply(t.Context(), request(2)); !errors.Is(err, ErrExhausted) {
		t.Error(err)
	}
	checkIndex(t, s)
}

// An owner that is dead in its old namespace keeps what it holds while room is
// made for more.
func TestDeadSelf(t *testing.T) {
	t.Parallel()
	c := Config{Sets: sets("10.1.0.0/30", "fd00::/128"), Dead: func(h Holder) bool { return h.NetnsID == "1" }}
	one := c
	one.DataDir, one.Sets = t.TempDir(), c.Sets[:1]
	mustApply(t, mustOpen(t, one), request(1))
	c.DataDir = one.DataDir
	s := mustOpen(t, c)
	newHostLocal(t, s).add(t, owner(2), "fd00::")
	if _, err := s.Apply(t.Context(), request(1)); !errors.Is(err, ErrExhausted) {
		t.Error(err)
	}
	if err := s.Verify(t.Context(), owner(1), nil); err != nil {
		t.Error(err)
	}
	checkIndex(t, s)
}
