package ipamstore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// newBook returns a book of four IPv4 and many IPv6 subnets.
func newBook(t testing.TB) *Subnets {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "pools.json")
	if err := os.WriteFile(file, []byte(`[{"base":"10.8.0.0/22","size":24},{"base":"fd00:8::/48","size":64}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	return &Subnets{DataDir: filepath.Join(dir, "data"), PoolsFile: file}
}

func (s *Subnets) must(t testing.TB, c SubnetClaim) string {
	t.Helper()
	p, err := s.Apply(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return p.String()
}

func TestSubnets(t *testing.T) {
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
	six := SubnetRequest{IPv6: true}
	for _, tt := range []struct {
		claim SubnetClaim
		want  string
	}{
		{SubnetClaim{Network: "web"}, "10.8.0.0/24"},
		{SubnetClaim{Network: "db"}, "10.8.1.0/24"},
		{SubnetClaim{Network: "web", Want: six}, "fd00:8::/64"},
		{SubnetClaim{Network: "db", Want: six}, "fd00:8:0:1::/64"},
		{SubnetClaim{Network: "web", InUse: prefixes("10.8.0.0/24 10.8.1.0/24")}, "10.8.0.0/24"}, // its own route
		{SubnetClaim{Network: "web", Want: SubnetRequest{Bits: 26}}, "10.8.0.0/24"},
		{SubnetClaim{Network: "big", InUse: prefixes("10.8.2.128/32")}, "10.8.3.0/24"},
		{SubnetClaim{Network: "old", Keep: prefix("10.40.0.0/16"), InUse: prefixes("10.40.0.0/16")}, "10.40.0.0/16"},
		{SubnetClaim{Network: "old"}, "10.40.0.0/16"},
	} {
		if got := s.must(t, tt.claim); got != tt.want {
			t.Errorf("%+v: got %s, want %s", tt.claim, got, tt.want)
		}
	}
	if _, err := s.Apply(t.Context(), SubnetClaim{Network: "full", InUse: prefixes("10.8.2.0/24")}); !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "10.8.0.0/22") {
		t.Errorf("error %v, want ErrExhausted that names the pool", err)
	}
	if _, err := s.Apply(t.Context(), SubnetClaim{Network: "two", Keep: prefix("10.8.0.0/16")}); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "web") {
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
	if got := s.must(t, SubnetClaim{Network: "next"}); got != "10.8.0.0/24" {
		t.Errorf("got %s, want the one given back", got)
	}
}

// No index of a pool, and nothing that host-local reads, has the book's name.
func TestSubnetsBesideAPool(t *testing.T) {
	t.Parallel()
	s := newBook(t)
	s.must(t, SubnetClaim{Network: "subnets"})
	store := mustOpen(t, Config{Network: "subnets", DataDir: s.DataDir, Sets: sets("10.8.0.0/24")})
	mustApply(t, store, request(1))
	if list, err := s.List(); err != nil || len(list) != 1 {
		t.Errorf("the book: %v, %v", list, err)
	}
	if !checkIndex(t, store) {
		t.Error("the index is not trusted")
	}
}

// What a killed process left goes with the next Remove, of any network.
func TestSubnetsDraftLeft(t *testing.T) {
	t.Parallel()
	s := newBook(t)
	s.must(t, SubnetClaim{Network: "web"})
	for _, network := range []string{"other", "web"} {
		draft := filepath.Join(s.path(), bookDraft)
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

func TestSubnetsDamaged(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"web 10.8.0.0/2", "web\n", "../x 10.8.0.0/24\n", "web 10.8.0.1/24\n", "\x00\x00\x00", "\n"} {
		s := newBook(t)
		s.must(t, SubnetClaim{Network: "web"})
		path := filepath.Join(s.path(), bookFile)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := s.Apply(t.Context(), SubnetClaim{Network: "db"})
		for _, err := range []error{err, s.Remove(t.Context(), "web")} {
			if !errors.Is(err, ErrIO) || !strings.Contains(err.Error(), path) {
				t.Errorf("%q: error %v, want ErrIO that names %s", text, err, path)
			}
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != text {
			t.Errorf("%q became %q, %v", text, data, err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := s.must(t, SubnetClaim{Network: "db"}); got != "10.8.0.0/24" {
			t.Errorf("after an empty file: %s", got)
		}
	}
}

func TestSubnetsLocked(t *testing.T) {
	t.Parallel()
	s := newBook(t)
	s.must(t, SubnetClaim{Network: "web"})
	d, err := openDir(s.path())
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	lock, err := lockPool(t.Context(), d, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	s.LockTimeout = 10 * time.Millisecond
	if _, err := s.Apply(t.Context(), SubnetClaim{Network: "db"}); !errors.Is(err, ErrLocked) {
		t.Errorf("error %v, want ErrLocked", err)
	}
	if p, err := s.Lookup("web", false); err != nil || !p.IsValid() {
		t.Errorf("Lookup waits for the lock: %v, %v", p, err)
	}
	if err := os.NewFile(uintptr(lock), "lock").Close(); err != nil {
		t.Fatal(err)
	}
}

// childSubnets is a process that chooses subnets for networks first to end-1.
func childSubnets(data string, first, end int) error {
	s := Subnets{DataDir: data, PoolsFile: filepath.Join(data, "pools.json"), LockTimeout: time.Minute}
	for n := first; n < end; n++ {
		if _, err := s.Apply(context.Background(), SubnetClaim{Network: fmt.Sprint("n", n)}); err != nil {
			return err
		}
	}
	return nil
}

// Many processes choose at once: 1000 networks, 1000 subnets.
func TestSubnetsManyProcesses(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "pools.json"), []byte(`[{"base":"10.0.0.0/8","size":24}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	each(t, 8, "subnets", data)
	list, err := (&Subnets{DataDir: data}).List()
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
		d, err := openDir(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer d.close()
		if err := d.replace(bookFile, []byte(text)); err != nil {
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
			got, err := ChooseSubnet(pools, nil, SubnetRequest{IPv6: p.Base.Addr().Is6()})
			if err != nil || !slices.ContainsFunc(pools, func(p AddressPool) bool { return p.Base.Overlaps(got) }) {
				t.Errorf("%s: chose %v, %v", text, got, err)
			}
		}
	})
}

func BenchmarkSubnets(b *testing.B) {
	s := newBook(b)
	if err := os.WriteFile(s.PoolsFile, []byte(`[{"base":"10.0.0.0/8","size":24}]`), 0o600); err != nil {
		b.Fatal(err)
	}
	for n := range 31 {
		s.must(b, SubnetClaim{Network: fmt.Sprint("n", n)})
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
			s.must(b, SubnetClaim{Network: "new"})
			if err := s.Remove(b.Context(), "new"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkChooseSubnet(b *testing.B) {
	var used []netip.Prefix
	for n := range 1000 {
		used = append(used, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 0}), 24))
	}
	pools := poolsOf(b, "10.0.0.0/8:24")
	for b.Loop() {
		if _, err := ChooseSubnet(pools, used, SubnetRequest{}); err != nil {
			b.Fatal(err)
		}
	}
}
