package ipamstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fill puts n lease files, from the second address on, into an empty pool.
func fill(t testing.TB, s *Store, n int) {
	t.Helper()
	if err := os.MkdirAll(s.path(), 0o755); err != nil {
		t.Fatal(err)
	}
	defer unix.Sync() // what is measured next is not the writing of these
	a := s.pools[0].spans[0].first
	for i := range n {
		o := Owner{fmt.Sprintf("%064x", i), "eth0"}
		if err := os.WriteFile(filepath.Join(s.path(), a.String()), leaseText(o), 0o600); err != nil {
			t.Fatal(err)
		}
		a = a.Next()
	}
}

func BenchmarkApplyRemove(b *testing.B) {
	for _, subnet := range []string{"10.1.0.0/16", "10.0.0.0/8", "fd00::/64"} {
		for _, strategy := range []Strategy{StrategyNext, StrategyLowest} {
			for _, n := range []int{0, 60000} {
				b.Run(fmt.Sprintf("%s/%s/%d", filepath.Base(subnet), strategy, n), func(b *testing.B) {
					s := mustOpen(b, Config{Sets: sets(subnet), Strategy: strategy})
					fill(b, s, n)
					for i := range 100 { // settle: the index, and its files
						benchPair(b, s, -i)
					}
					b.ResetTimer()
					for i := 0; b.Loop(); i++ {
						benchPair(b, s, i)
					}
				})
			}
		}
	}
}

func benchPair(b *testing.B, s *Store, i int) {
	r := request(0)
	r.Owner = Owner{fmt.Sprintf("%064d", i), "eth0"}
	if _, err := s.Apply(b.Context(), r); err != nil {
		b.Fatal(err)
	}
	if err := s.Remove(b.Context(), r.Owner); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkExhausted(b *testing.B) {
	for _, dead := range []func(Holder) bool{nil, func(Holder) bool { return false }} {
		b.Run(fmt.Sprintf("dead=%v", dead != nil), func(b *testing.B) {
			s := mustOpen(b, Config{Sets: sets("10.1.0.0/16"), Dead: dead})
			fill(b, s, 65533)
			if _, err := s.Apply(b.Context(), request(1)); !errors.Is(err, ErrExhausted) {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := s.Apply(b.Context(), request(1)); !errors.Is(err, ErrExhausted) {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkQueries(b *testing.B) {
	for _, subnet := range []string{"10.1.0.0/16", "fd00::/64"} {
		s := mustOpen(b, Config{Sets: sets(subnet)})
		fill(b, s, 60000)
		start := time.Now()
		if _, err := s.Apply(b.Context(), request(1)); err != nil {
			b.Fatal(err)
		}
		fmt.Printf("%s: adopted 60000 leases in %s\n", subnet, time.Since(start))
		if err := os.Chtimes(s.path(), time.Now(), time.Now()); err != nil {
			b.Fatal(err)
		}
		start = time.Now()
		if err := s.Verify(b.Context(), owner(1), nil); err != nil {
			b.Fatal(err)
		}
		fmt.Printf("%s: rebuilt the index of 60000 leases in %s\n", subnet, time.Since(start))
		b.Run("Verify/"+filepath.Base(subnet), func(b *testing.B) {
			for b.Loop() {
				if err := s.Verify(b.Context(), owner(1), nil); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("Status/"+filepath.Base(subnet), func(b *testing.B) {
			for b.Loop() {
				if _, err := s.Status(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
