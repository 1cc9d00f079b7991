package subnets

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/pooldir"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// newBook returns a book of four IPv4 and many IPv6 subnets.
func newBook(t testing.TB) *Book {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "pools.json")
	if err := os.WriteFile(file, []byte(`[{"base":"10.8.0.0/22","size":24},{"base":"fd00:8::/48","size":64}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	return &Book{DataDir: filepath.Join(dir, "data"), PoolsFile: file}
}

func (s *Book) must(t testing.TB, c Claim) string {
	t.Helper()
	p, err := s.Apply(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return p.String()
}

func TestBook(t *testing.T) {
	t.Parallel()
	s := newBook(t)
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Fatalf("a new book: %v, %v", list, err)
	}
	if err := s.Remove(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.DataDir); !os.IsNotExist(err) {
		t.Error("Remove made the data directory")
	}
	six := Request{IPv6: true}
	for _, tt := range []struct {
		claim Claim
		want  string
	}{
		{Claim{Network: "web"}, "10.8.0.0/24"},
		{Claim{Network: "db"}, "10.8.1.0/24"},
		{Claim{Network: "web", Want: six}, "fd00:8::/64"},
		{Claim{Network: "db", Want: six}, "fd00:8:0:1::/64"},
		{Claim{Network: "web", InUse: prefixes("10.8.0.0/24 10.8.1.0/24")}, "10.8.0.0/24"}, // its own route
		{Claim{Network: "web", Want: Request{Bits: 26}}, "10.8.0.0/24"},
		{Claim{Network: "big", InUse: prefixes("10.8.2.128/32")}, "10.8.3.0/24"},
		{Claim{Network: "old", Keep: netip.MustParsePrefix("10.40.0.0/16"), InUse: prefixes("10.40.0.0/16")}, "10.40.0.0/16"},
		{Claim{Network: "old"}, "10.40.0.0/16"},
	} {
		if got := s.must(t, tt.claim); got != tt.want {
			t.Errorf("%+v: got %s, want %s", tt.claim, got, tt.want)
		}
	}
	if _, err := s.Apply(t.Context(), Claim{Network: "full", InUse: prefixes("10.8.2.0/24")}); !errors.Is(err, ipamstore.ErrExhausted) || !strings.Contains(err.Error(), "10.8.0.0/22") {
		t.Errorf("error %v, want ErrExhausted that names the pool", err)
	}
	if _, err := s.Apply(t.Context(), Claim{Network: "two", Keep: netip.MustParsePrefix("10.8.0.0/16")}); !errors.Is(err, ipamstore.ErrTaken) || !strings.Contains(err.Error(), "web") {
		t.Errorf("error %v, want ErrTaken that names web", err)
	}
	list, err := s.List()
	want := "[{web 10.8.0.0/24} {db 10.8.1.0/24} {big 10.8.3.0/24} {old 10.40.0.0/16} {web fd00:8::/64} {db fd00:8:0:1::/64}]"
	if got := fmt.Sprint(list); err != nil || got != want {
		t.Errorf("the book is %s, %v, want %s", got, err, want)
	}
	for range 2 {
		if err := s.Remove(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := s.Lookup("web", true); p.IsValid() || err != nil {
		t.Errorf("removed: %v, %v", p, err)
	}
	if got := s.must(t, Claim{Network: "next"}); got != "10.8.0.0/24" {
		t.Errorf("got %s, want the one given back", got)
	}
}

// No index of a pool, and nothing that host-local reads, has the book's name.
func TestBesideAPool(t *testing.T) {
	t.Parallel()
	s := newBook(t)
	s.must(t, Claim{Network: "subnets"})
	pool := ipamstore.RangeSet{{Subnet: netip.MustParsePrefix("10.8.0.0/24")}}
	store, err := ipamstore.Open(ipamstore.Config{Network: "subnets", DataDir: s.DataDir, Sets: []ipamstore.RangeSet{pool}})
	if err != nil {
		t.Fatal(err)
	}
	owner := ipamstore.Owner{ContainerID: "c1", IfName: "eth0"}
	leases, err := store.Apply(t.Context(), ipamstore.Request{Holder: ipamstore.Holder{Owner: owner}})
	if err != nil {
		t.Fatal(err)
	}
	if list, err := s.List(); err != nil || len(list) != 1 {
		t.Errorf("the book: %v, %v", list, err)
	}
	if err := store.Verify(t.Context(), owner, []netip.Addr{leases[0].Addr.Addr()}); err != nil {
		t.Error(err)
	}
	if u, err := store.Status(t.Context()); err != nil || u.Problems != 0 || u.Sets[0].Held != 1 {
		t.Errorf("the pool: %+v, %v", u, err)
	}
	if held, err := store.List(t.Context()); err != nil || len(held) != 1 {
		t.Errorf("the pool holds %v, %v", held, err)
	}
}

// The next Remove, of any network, takes away the draft of a killed process.
func TestDraftLeft(t *testing.T) {
	t.Parallel()
	s := newBook(t)
	s.must(t, Claim{Network: "web"})
	for _, network := range []string{"other", "web"} {
		draft := filepath.Join(s.path(), pooldir.Draft)
		if err := os.WriteFile(draft, []byte("web 10."), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Remove(t.Context(), network); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(draft); !os.IsNotExist(err) {
			t.Errorf("after Remove of %s: %v", network, err)
		}
	}
}

func TestDamaged(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"web 10.8.0.0/2", "web\n", "../x 10.8.0.0/24\n", "web 10.8.0.1/24\n", "\x00\x00\x00", "\n"} {
		s := newBook(t)
		s.must(t, Claim{Network: "web"})
		path := filepath.Join(s.path(), bookFile)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := s.Apply(t.Context(), Claim{Network: "db"})
		for _, err := range []error{err, s.Remove(t.Context(), "web")} {
			if !errors.Is(err, ipamstore.ErrIO) || !strings.Contains(err.Error(), path) {
				t.Errorf("%q: error %v, want ErrIO that names %s", text, err, path)
			}
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != text {
			t.Errorf("%q became %q, %v", text, data, err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := s.must(t, Claim{Network: "db"}); got != "10.8.0.0/24" {
			t.Errorf("after an empty file: %s", got)
		}
	}
}

func TestLocked(t *testing.T) {
	t.Parallel()
	s := newBook(t)
	s.must(t, Claim{Network: "web"})
	d, err := pooldir.Open(s.path())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	lock, err := pooldir.Lock(t.Context(), d, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	s.LockTimeout = 10 * time.Millisecond
	if _, err := s.Apply(t.Context(), Claim{Network: "db"}); !errors.Is(err, ipamstore.ErrLocked) {
		t.Errorf("error %v, want ErrLocked", err)
	}
	if p, err := s.Lookup("web", false); err != nil || !p.IsValid() {
		t.Errorf("Lookup waits for the lock: %v, %v", p, err)
	}
	if err := os.NewFile(uintptr(lock), "lock").Close(); err != nil {
		t.Fatal(err)
	}
}

// Many processes choose at once: 1000 networks, 1000 subnets.
func TestManyProcesses(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "pools.json"), []byte(`[{"base":"10.0.0.0/8","size":24}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	inProcesses(t, 8, data)
	list, err := (&Book{DataDir: data}).List()
	if err != nil || len(list) != 1000 {
		t.Fatalf("%d subnets, %v, want 1000", len(list), err)
	}
	for i := 1; i < len(list); i++ {
		if list[i-1].Subnet.Overlaps(list[i].Subnet) {
			t.Errorf("%v and %v", list[i-1], list[i])
		}
	}
}

func FuzzReadBook(f *testing.F) {
	f.Add("web 10.8.0.0/24\ndb fd00::/64\n")
	f.Add("web 10.8.0.0/24\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := pooldir.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := d.Replace(bookFile, []byte(text)); err != nil {
			t.Fatal(err)
		}
		book, err := readBook(d)
		if err != nil {
			return
		}
		if err := writeBook(d, slices.Clone(book)); err != nil {
			t.Fatal(err)
		}
		again, err := readBook(d)
		if err != nil || len(again) != len(book) {
			t.Errorf("%q: read %v, written and read again %v, %v", text, book, again, err)
		}
	})
}

func FuzzParsePools(f *testing.F) {
	f.Add(`[{"base":"10.200.0.0/16","size":24}]`)
	f.Fuzz(func(t *testing.T, text string) {
		pools, err := parsePools([]byte(text))
		if err != nil {
			return
		}
		for _, p := range pools {
			got, err := Choose(pools, nil, Request{IPv6: p.Base.Addr().Is6()})
			if err != nil || !slices.ContainsFunc(pools, func(p Pool) bool { return p.Base.Overlaps(got) }) {
				t.Errorf("%s: chose %v, %v", text, got, err)
			}
		}
	})
}

func BenchmarkBook(b *testing.B) {
	s := newBook(b)
	if err := os.WriteFile(s.PoolsFile, []byte(`[{"base":"10.0.0.0/8","size":24}]`), 0o600); err != nil {
		b.Fatal(err)
	}
	for n := range 31 {
		s.must(b, Claim{Network: fmt.Sprint("n", n)})
	}
	b.Run("Lookup", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Lookup("n30", false); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Apply+Remove", func(b *testing.B) {
		for b.Loop() {
			s.must(b, Claim{Network: "new"})
			if err := s.Remove(b.Context(), "new"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkChoose(b *testing.B) {
	var used []netip.Prefix
	for n := range 1000 {
		used = append(used, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 0}), 24))
	}
	pools := poolsOf(b, "10.0.0.0/8:24")
	for b.Loop() {
		if _, err := Choose(pools, used, Request{}); err != nil {
			b.Fatal(err)
		}
	}
}
