package nft

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// parallel runs fn on threads of the namespace at path at once, with a
// Firewall each, as so many processes would.
func parallel(t *testing.T, path string, fws []*Firewall, fn func(i int, f *Firewall) error) {
	t.Helper()
	start := make(chan struct{})
	errs := make([]error, len(fws))
	var wg sync.WaitGroup
	for i, f := range fws {
		wg.Go(func() {
			errs[i] = lntest.In(t, path, func() error {
				<-start
				return fn(i, f)
			})
		})
	}
	close(start)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func apply(t *testing.T, f *Firewall, n firewall.Network, e firewall.Endpoint) error {
	_, err := f.Apply(t.Context(), n, e)
	return err
}

func firewalls(t *testing.T, n int) []*Firewall {
	var all []*Firewall
	for range n {
		all = append(all, fresh(t))
	}
	return all
}

func wantNoTables(t *testing.T, path string) {
	t.Helper()
	err := lntest.In(t, path, func() error {
		wantTables(t, fresh(t), false, false)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFirstUseByMany(t *testing.T) {
	t.Parallel()
	path := lntest.NewNetns(t)
	fws := firewalls(t, 16)
	for range 5 {
		parallel(t, path, fws, func(i int, f *Firewall) error {
			n, e := sample(i)
			return apply(t, f, n, e)
		})
		parallel(t, path, fws, func(i int, f *Firewall) error {
			n, e := sample(i)
			return f.Verify(t.Context(), n, e) // rules twice would be ErrConflict
		})
		parallel(t, path, fws, func(i int, f *Firewall) error {
			n, e := sample(i)
			return errors.Join(f.Remove(t.Context(), e), f.RemoveNetwork(t.Context(), n))
		})
		wantNoTables(t, path)
	}
}

// The last to leave deletes the tables while others come: no endpoint loses a rule.
func TestComeAndGo(t *testing.T) {
	t.Parallel()
	path := lntest.NewNetns(t)
	parallel(t, path, firewalls(t, 8), func(i int, f *Firewall) error {
		n, e := sample(i)
		for range 10 {
			if err := apply(t, f, n, e); err != nil {
				return err
			}
			if err := f.Verify(t.Context(), n, e); err != nil {
				return fmt.Errorf("after apply: %w", err)
			}
			if err := errors.Join(f.Remove(t.Context(), e), f.RemoveNetwork(t.Context(), n)); err != nil {
				return err
			}
		}
		return nil
	})
	wantNoTables(t, path)
}

// A late Remove by the old owner never takes what the new one has applied; until
// it comes the new one is refused.
func TestLateRemove(t *testing.T) {
	t.Parallel()
	path := lntest.NewNetns(t)
	fws := firewalls(t, 2)
	_, old := sample(1)
	next := old
	next.Owner = "net1/next/eth0"
	for range 50 {
		parallel(t, path, fws[:1], func(_ int, f *Firewall) error { return apply(t, f, firewall.Network{}, old) })
		parallel(t, path, fws, func(i int, f *Firewall) error {
			if i == 0 {
				return f.Remove(t.Context(), old)
			}
			for {
				if err := apply(t, f, firewall.Network{}, next); !errors.Is(err, firewall.ErrConflict) {
					return err
				}
			}
		})
		parallel(t, path, fws[:1], func(_ int, f *Firewall) error {
			return errors.Join(f.Verify(t.Context(), firewall.Network{}, next), f.Remove(t.Context(), next))
		})
	}
}

// One Firewall follows the thread from namespace to namespace.
func TestManyNamespaces(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	n, e := sample(1)
	paths := []string{lntest.NewNetns(t), lntest.NewNetns(t)}
	for range 2 {
		for i, path := range paths {
			err := lntest.In(t, path, func() error {
				if i == 0 {
					return apply(t, f, n, e)
				}
				wantTables(t, f, false, false)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}
