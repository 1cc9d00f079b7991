package ipamstore

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestApply(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/29", "fd00::/64")})
	leases, err := s.Apply(t.Context(), request(1))
	if err != nil {
		t.Fatal(err)
	}
	want := []Lease{{prefix("10.1.0.2/29"), addr("10.1.0.1"), 0}, {prefix("fd00::2/64"), addr("fd00::1"), 1}}
	if len(leases) != 2 || leases[0] != want[0] || leases[1] != want[1] {
		t.Fatalf("leases %v, want %v", leases, want)
	}
	files := leaseFiles(t, s)
	if len(files) != 2 || files["10.1.0.2"] != "c1\r\neth0" || files["fd00::2"] != "c1\r\neth0" {
		t.Errorf("lease files %q", files)
	}
	if got, err := os.ReadFile(filepath.Join(s.path(), "last_reserved_ip.0")); string(got) != "10.1.0.2" {
		t.Errorf("cursor %q, %v", got, err)
	}
	if got := mustApply(t, s, request(1)); got != "10.1.0.2 fd00::2" {
		t.Errorf("same owner got %s", got)
	}
	if err := s.Verify(t.Context(), owner(1), []netip.Addr{addr("fd00::2"), addr("10.1.0.2")}); err != nil {
		t.Error(err)
	}
	if err := s.Verify(t.Context(), owner(1), []netip.Addr{addr("10.1.0.2")}); !errors.Is(err, ErrMismatch) {
		t.Errorf("verify of too few: %v", err)
	}
	if err := s.Verify(t.Context(), owner(2), nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("verify of a stranger: %v", err)
	}
	mustRemove(t, s, 1)
	mustRemove(t, s, 1)
	if files := leaseFiles(t, s); len(files) != 0 {
		t.Errorf("left %v", files)
	}
	checkIndex(t, s)
}

// A set that is full fails the whole request, and nothing is left of it.
func TestAllOrNothing(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/24", "fd00::/127")})
	mustApply(t, s, request(1))
	mustApply(t, s, request(2))
	before := leaseFiles(t, s)
	_, err := s.Apply(t.Context(), request(3))
	if !errors.Is(err, ErrExhausted) {
		t.Fatalf("third of two: %v", err)
	}
	for _, word := range []string{"2 of 2", "set 1", "c1/eth0, workload pod-1", "GC"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q is not in %q", word, err)
		}
	}
	if after := leaseFiles(t, s); len(after) != len(before) {
		t.Errorf("leases %v, before %v", after, before)
	}
	if _, err := s.Status(t.Context()); !errors.Is(err, ErrExhausted) {
		t.Errorf("status %v", err)
	}
	checkIndex(t, s)
}

func TestRequested(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{
		Sets:    sets("10.1.0.0/24", "fd00::/64"),
		Exclude: []netip.Prefix{prefix("10.1.0.64/26")},
		Aux:     map[string]netip.Addr{"router": addr("10.1.0.9")},
	})
	mustApply(t, s, request(1, "10.1.0.7"))
	for _, c := range []struct {
		addrs string
		want  error
		text  string
	}{
		{"10.1.0.1", ErrInvalid, "gateway"},
		{"10.1.0.9", ErrInvalid, "auxiliary"},
		{"10.2.0.1", ErrInvalid, "no range"},
		{"10.1.0.255", ErrInvalid, "no range"},
		{"10.1.0.20 10.1.0.21", ErrInvalid, "same set"},
		{"10.1.0.7", ErrTaken, "c1/eth0, workload pod-1, namespace /run/netns/1"},
	} {
		_, err := s.Apply(t.Context(), request(2, strings.Fields(c.addrs)...))
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.addrs, err)
		}
	}
	if got := mustApply(t, s, request(3, "::ffff:10.1.0.70", "fd00::abcd")); got != "10.1.0.70 fd00::abcd" {
		t.Error(got)
	}
	if got := mustApply(t, s, request(3, "10.1.0.71")); got != "10.1.0.71 fd00::abcd" {
		t.Errorf("other address for the same owner: %s", got)
	}
	if files := leaseFiles(t, s); len(files) != 4 || files["10.1.0.70"] != "" {
		t.Errorf("files %q", files)
	}
	checkIndex(t, s)
}

func TestExcludeAndStrategies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		strategy Strategy
		want     string
	}{
		{StrategyNext, "10.1.0.4 10.1.0.6 10.1.0.4"},
		{StrategyLowest, "10.1.0.4 10.1.0.4 10.1.0.4"},
		{StrategyHash, ""}, {StrategyRandom, ""},
	} {
		s := mustOpen(t, Config{
			Strategy: c.strategy, Sets: sets("10.1.0.0/29"),
			Exclude: []netip.Prefix{prefix("10.1.0.2/31")},
			Aux:     map[string]netip.Addr{"x": addr("10.1.0.5")},
		})
		var got []string
		for range 3 {
			got = append(got, mustApply(t, s, request(1)))
			mustRemove(t, s, 1)
		}
		if all := strings.Join(got, " "); c.want != "" && all != c.want {
			t.Errorf("%s: %s, want %s", c.strategy, all, c.want)
		}
		if c.strategy == StrategyHash && (got[0] != got[1] || got[1] != got[2]) {
			t.Errorf("hash: %v", got)
		}
		mustApply(t, s, request(1))
		mustApply(t, s, request(2))
		if _, err := s.Apply(t.Context(), request(3)); !errors.Is(err, ErrExhausted) {
			t.Errorf("%s: third of two: %v", c.strategy, err)
		}
		if files := leaseFiles(t, s); files["10.1.0.4"] == "" || files["10.1.0.6"] == "" {
			t.Errorf("%s: %v", c.strategy, files)
		}
		checkIndex(t, s)
	}
}

func TestDead(t *testing.T) {
	t.Parallel()
	dead := map[string]bool{}
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/29"), Dead: func(h Holder) bool { return dead[h.NetnsID] }})
	for i := range 5 {
		mustApply(t, s, request(i))
	}
	if _, err := s.Apply(t.Context(), request(9)); !errors.Is(err, ErrExhausted) {
		t.Fatal(err)
	}
	dead["3"] = true
	if _, err := s.Status(t.Context()); err != nil {
		t.Errorf("status with a dead holder: %v", err)
	}
	if got := mustApply(t, s, request(9)); got != "10.1.0.5" {
		t.Error(got)
	}
	if _, err := s.Apply(t.Context(), request(10, "10.1.0.2")); !errors.Is(err, ErrTaken) {
		t.Error(err)
	}
	dead["0"] = true
	if got := mustApply(t, s, request(10, "10.1.0.2")); got != "10.1.0.2" {
		t.Error(got)
	}
	if err := s.Verify(t.Context(), owner(0), nil); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	checkIndex(t, s)
}

// Lease files removed by hand come again where a link still has the address,
// whichever call finds out.
func TestInUse(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]func(*Store) error{
		"apply":  func(s *Store) error { _, err := s.Apply(t.Context(), request(4)); return err },
		"remove": func(s *Store) error { return s.Remove(t.Context(), owner(1)) },
		"status, then remove": func(s *Store) error {
			_, err := s.Status(t.Context())
			if err := s.Verify(t.Context(), owner(2), nil); !errors.Is(err, ErrNotFound) {
				t.Errorf("before anything may change: %v, want ErrNotFound", err)
			}
			return errors.Join(err, s.Remove(t.Context(), owner(1)))
		},
	} {
		s := mustOpen(t, Config{Sets: sets("10.1.0.0/29"), Strategy: StrategyLowest, InUse: func(h Holder, a netip.Addr) bool {
			return h.Owner == owner(2) && h.NetnsID == "2" && a == addr("10.1.0.3")
		}})
		for n := 1; n <= 3; n++ {
			mustApply(t, s, request(n)) // 10.1.0.2 to 10.1.0.4
		}
		for _, a := range []string{"10.1.0.3", "10.1.0.4"} {
			if err := os.Remove(filepath.Join(s.path(), a)); err != nil {
				t.Fatal(err)
			}
		}
		if err := next(s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.Verify(t.Context(), owner(2), []netip.Addr{addr("10.1.0.3")}); err != nil {
			t.Errorf("%s: the lease of a live link: %v", name, err)
		}
		if err := s.Verify(t.Context(), owner(3), nil); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: the lease that no link has: %v", name, err)
		}
		if _, err := s.Apply(t.Context(), request(6, "10.1.0.3")); !errors.Is(err, ErrTaken) {
			t.Errorf("%s: asked for the address of a live link: %v", name, err)
		}
		checkIndex(t, s)
	}
}

func TestSticky(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/24", "fd00::/64"), Sticky: true, Cooldown: time.Minute})
	now := clock(s)
	first := mustApply(t, s, request(1))
	mustRemove(t, s, 1)
	r := request(2)
	r.Workload = "pod-1"
	if got := mustApply(t, s, r); got != first {
		t.Errorf("workload came back to %s, not %s", got, first)
	}
	mustRemove(t, s, 2)
	*now += 59 * time.Second
	checkIndex(t, s)
	for i := 3; i < 200; i++ {
		if got := mustApply(t, s, request(i)); got == first {
			t.Fatalf("%s was given away in its cooldown", got)
		}
	}
	*now += 2 * time.Second
	r.Owner = owner(999)
	if got := mustApply(t, s, r); got != first {
		t.Errorf("workload came back to %s, not %s", got, first)
	}
	checkIndex(t, s)
}

func TestCooldown(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/29"), Cooldown: time.Minute, Strategy: StrategyLowest})
	now := clock(s)
	mustApply(t, s, request(1))
	mustApply(t, s, request(2))
	mustRemove(t, s, 1)
	*now += 30 * time.Second
	mustRemove(t, s, 2)
	for i := 3; i < 6; i++ {
		mustApply(t, s, request(i))
	}
	_, err := s.Apply(t.Context(), request(6))
	if !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "2 rest") {
		t.Errorf("all rest: %v", err)
	}
	u, err := s.Status(t.Context())
	if u.Sets[0] != (SetUsage{Capacity: 5, Held: 3, Cooling: 2}) || !errors.Is(err, ErrExhausted) {
		t.Errorf("status %+v, %v", u, err)
	}
	resting := func() (all []string) {
		t.Helper()
		found, err := s.Resting(t.Context())
		if err != nil {
			t.Error(err)
		}
		for _, r := range found {
			if got := r.Until.Sub(r.Since); got != time.Minute {
				t.Errorf("%s rests for %s", r.Addr, got)
			}
			all = append(all, r.Addr.String())
		}
		return all
	}
	if got := strings.Join(resting(), " "); got != "10.1.0.2 10.1.0.3" {
		t.Errorf("resting: %s", got)
	}
	// A request does not wait, and the rest starts anew afterwards.
	mustApply(t, s, request(7, "10.1.0.2"))
	mustRemove(t, s, 7)
	*now += 30 * time.Second
	if u, err := s.Status(t.Context()); u.Sets[0] != (SetUsage{Capacity: 5, Held: 3, Cooling: 2}) || !errors.Is(err, ErrExhausted) {
		t.Errorf("status %+v, %v", u, err)
	}
	if got := strings.Join(resting(), " "); got != "10.1.0.3 10.1.0.2" {
		t.Errorf("resting: %s", got)
	}
	*now += 30 * time.Second
	if got := resting(); len(got) != 0 {
		t.Errorf("resting: %v", got)
	}
	checkIndex(t, s)
	if got := mustApply(t, s, request(8)); got != "10.1.0.2" && got != "10.1.0.3" {
		t.Error(got)
	}
	mustApply(t, s, request(9))
	if _, err := os.Stat(filepath.Join(s.index(), coolingFile)); !os.IsNotExist(err) {
		t.Errorf("queue is still there: %v", err)
	}
	checkIndex(t, s)
}

func TestCollectAndList(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/24")})
	for i := range 10 {
		mustApply(t, s, request(i))
	}
	odd := map[string]string{
		"10.1.0.100": "", "10.1.0.101": "\x00\x00\x00", "10.1.0.102": strings.Repeat("x", 5000), "10.1.0.103": "old",
		"README": "hands off", "10.1.0.04": "x",
	}
	for name, data := range odd {
		if err := os.WriteFile(filepath.Join(s.path(), name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(s.path(), "10.1.0.104"), 0o755); err != nil {
		t.Fatal(err)
	}
	mustApply(t, s, request(10))
	list, err := s.List(t.Context())
	if err != nil || len(list) != 11+len(odd)+1 {
		t.Fatalf("%d files, %v", len(list), err)
	}
	if u, err := s.Status(t.Context()); err != nil || u.Problems != 6 || u.Sets[0].Held != 13 {
		t.Errorf("status %+v, %v", u, err)
	}
	// Garbage has no owner; what is no file is in the way.
	for i := 11; i < 251; i++ {
		mustApply(t, s, request(i))
	}
	if _, err := s.Apply(t.Context(), request(999)); !errors.Is(err, ErrExhausted) {
		t.Error(err)
	}
	checkIndex(t, s)
	n, err := s.Collect(t.Context(), func(h Holder) bool { return h.Workload == "pod-7" })
	if err != nil || n != 251 {
		t.Errorf("collected %d, %v", n, err)
	}
	if files := leaseFiles(t, s); len(files) != 3 || files["README"] == "" {
		t.Errorf("left %q", files)
	}
	checkIndex(t, s)
	bare := mustOpen(t, Config{DataDir: s.conf.DataDir})
	mustRemove(t, bare, 7)
	checkIndex(t, s)
	if err := s.Verify(t.Context(), owner(7), nil); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestNoPool(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{DataDir: filepath.Join(t.TempDir(), "none"), Sets: sets("10.1.0.0/24")})
	if err := s.Remove(t.Context(), owner(1)); err != nil {
		t.Error(err)
	}
	if l, err := s.List(t.Context()); err != nil || l != nil {
		t.Error(l, err)
	}
	if _, err := s.Lookup(t.Context(), owner(1)); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if n, err := s.Collect(t.Context(), nil); n != 0 || err != nil {
		t.Error(n, err)
	}
	if u, err := s.Status(t.Context()); err != nil || u.Sets[0].Capacity != 253 {
		t.Error(u, err)
	}
	if _, err := os.Stat(s.conf.DataDir); !os.IsNotExist(err) {
		t.Errorf("data directory was made: %v", err)
	}
	for _, o := range []Owner{{}, {" c", "e"}, {"c\r\nx", "e"}, {strings.Repeat("c", 2000), "e"}} {
		if err := s.Remove(t.Context(), o); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", o, err)
		}
	}
}

// Tidy removes what is no lease, Holders only looks.
func TestHolders(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/24", "fd00::/64")})
	mustApply(t, s, request(1))
	mustApply(t, s, request(2))
	empty := filepath.Join(s.path(), "10.1.0.77")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want := []Holder{request(1).Holder, request(2).Holder}
	got, err := s.Holders(t.Context())
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
	if _, err := os.Stat(empty); err != nil {
		t.Errorf("after a look: %v", err)
	}
	got, err = s.Tidy(t.Context())
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
	if _, err := os.Stat(empty); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Tidy: %v", err)
	}
	checkIndex(t, s)
	none, err := mustOpen(t, Config{Sets: sets("10.1.0.0/24")}).Tidy(t.Context())
	if len(none) != 0 || err != nil {
		t.Errorf("of no pool: %v, %v", none, err)
	}
}
