package iptables

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/flock"
	"github.com/libnet-cni/libnet/internal/sorting"
)

// DefaultLock is the lock file of all that change our rules.
const DefaultLock = "/run/libnet/iptables.lock"

// Firewall applies rules by iptables. Every call works in the network namespace
// of the calling thread. It holds nothing, and may be used by many goroutines.
type Firewall struct{ lock string }

// New opens nothing and costs nothing. lock is a file that is made where it is
// missing, and locked by every call that changes something; empty: DefaultLock.
func New(lock string) *Firewall { return &Firewall{cmp.Or(lock, DefaultLock)} }

// Apply puts the rules of n and e in place: one transaction per table, and what
// forbids before what allows. Twice is once. Rules that the owners had otherwise
// are replaced, and so are another network's for the same bridge; what a guard forbids stays unless
// n.Exact says otherwise. Chains and jumps of ours that are
// not there are made. Only the families of e.Addrs are touched; both if there are
// no addresses. A Network without a Bridge and an Endpoint without rules are
// passed over. After a failure, Remove deletes the rules in place.
//
// restored says whether a family had no chain of ours before: if an endpoint had rules there,
// another program has flushed them.
//
// It is a firewall.PortHeldError for another owner's port, a firewall.HeldError for
// an address by the same bridge that another endpoint has, and firewall.ErrInvalid
// for what no rule can hold, both before anything changes, but for conditions,
// which iptables alone can judge; and firewall.ErrUnsupported for an Endpoint
// with a MAC, and where iptables or something it needs in the kernel is missing.
func (f *Firewall) Apply(ctx context.Context, n firewall.Network, e firewall.Endpoint) (restored bool, err error) {
	e = normal(e)
	if err = check(n, e); err == nil && (n.Bridge != "" || hasRules(e)) {
		err = f.change(ctx, func() (bool, error) {
			return apply(ctx, familiesOf(e.Addrs), n, e, &restored)
		})
	}
	if err != nil {
		return false, fmt.Errorf("apply rules of %s: %w", cmp.Or(e.Owner, n.Name), err)
	}
	return restored, nil
}

// ApplyNetwork makes the rules of n what they should be, one transaction per
// table, in the families in which its bridge has rules; in all that the kernel has
// if it has none.
func (f *Firewall) ApplyNetwork(ctx context.Context, n firewall.Network) error {
	n.Exact = firewall.ExactNetwork
	err := check(n, firewall.Endpoint{})
	if err == nil && n.Bridge != "" {
		err = f.change(ctx, func() (bool, error) {
			in, err := familiesIn(ctx, n)
			if err != nil {
				return false, err
			}
			return apply(ctx, in, n, firewall.Endpoint{}, new(bool))
		})
	}
	if err != nil {
		return fmt.Errorf("apply rules of network %s: %w", n.Name, err)
	}
	return nil
}

// CheckPorts changes nothing. It is a *firewall.PortHeldError if another owner
// than e's has a port of e; nil also where there is no iptables.
func (f *Firewall) CheckPorts(ctx context.Context, e firewall.Endpoint) error {
	for _, fam := range familiesOf(e.Addrs) {
		snap, err := save(ctx, fam)
		if errors.Is(err, firewall.ErrUnsupported) {
			continue
		}
		if err == nil {
			_, err = checkHeld(snap, firewall.Key(e.Owner), "", plan(fam, firewall.Network{}, normal(e)))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Used says whether a program on this host has used this backend since it booted.
func (f *Firewall) Used() bool { return unix.Access(f.lock, unix.F_OK) == nil }

// Intact does not look: it would take a process, and Verify tells more.
func (f *Firewall) Intact(context.Context, firewall.Network) error { return nil }

// Restore does nothing: Apply compares every rule.
func (f *Firewall) Restore(context.Context) (changed bool, err error) { return false, nil }

// Complete does nothing, likewise.
func (f *Firewall) Complete(context.Context) error { return nil }

// familiesIn returns the families in which n has rules, or all if in none.
func familiesIn(ctx context.Context, n firewall.Network) ([]family, error) {
	var in []family
	for _, fam := range familiesOf(nil) {
		snap, err := save(ctx, fam)
		if err != nil && !errors.Is(err, firewall.ErrUnsupported) {
			return nil, err
		}
		if slices.ContainsFunc(snap.owned(), func(r rule) bool { return r.owner() == n.GuardKey() }) {
			in = append(in, fam)
		}
	}
	if len(in) == 0 {
		return familiesOf(nil), nil
	}
	return in, nil
}

// step is the change of one family.
type step struct {
	family family
	text   string
}

// apply looks at all families before it changes one. It makes restored true if
// one has no chain of ours or was flushed, and leaves it otherwise: it may be a
// second try.
func apply(ctx context.Context, in []family, n firewall.Network, e firewall.Endpoint, restored *bool) (tried bool, err error) {
	var steps []step
	for _, fam := range in {
		snap, err := save(ctx, fam)
		if err != nil {
			return false, err
		}
		wanted := keepClosed(snap, plan(fam, n, e), n)
		handed, err := checkHeld(snap, firewall.Key(e.Owner), handedBy(e), wanted)
		if err != nil {
			return false, err
		}
		if err := checkTaken(snap, firewall.Key(e.Owner), wanted); err != nil {
			return false, err
		}
		gone, added := differences(snap, wanted, owners(n, e))
		gone = append(gone, handed...)
		steps = append(steps, step{fam, replace(snap, gone, added)})
		*restored = *restored || len(wanted) > 0 && (!snap.used() || snap.flushed())
	}
	return execute(ctx, steps)
}

// handedBy is whose ports e takes over; empty: none.
func handedBy(e firewall.Endpoint) string {
	if e.Handover == nil {
		return ""
	}
	return firewall.Key(e.Handover.From)
}

// execute returns whether it has tried to change something.
func execute(ctx context.Context, steps []step) (bool, error) {
	tried := false
	for _, s := range steps {
		if s.text == "" {
			continue
		}
		tried = true
		if err := restore(ctx, s.family, s.text); err != nil {
			return true, err
		}
	}
	return tried, nil
}

// maxTries bounds how often a change is made anew because another program has
// changed the rules between our look and our change: on a busy machine the time
// between is long.
const maxTries = 10

// change runs fn under the lock, and again if it fails to change what it has
// seen: others than we do not know our lock.
func (f *Firewall) change(ctx context.Context, fn func() (tried bool, err error)) error {
	return locked(ctx, f.lock, func() error {
		for n := 1; ; n++ {
			tried, err := fn()
			hopeless := errors.Is(err, firewall.ErrUnsupported) || errors.Is(err, firewall.ErrInvalid) || errors.Is(err, flock.ErrLocked)
			if err == nil || !tried || n == maxTries || hopeless || ctx.Err() != nil {
				return err
			}
		}
	})
}

// Remove deletes the rules of the endpoints' Owners, in both families, and the chains
// that no owner uses then. Only the Owners count. A missing rule is success.
func (f *Firewall) Remove(ctx context.Context, es ...firewall.Endpoint) error {
	owners := make([]string, len(es))
	for i, e := range es {
		owners[i] = e.Owner
	}
	if err := f.remove(ctx, owners...); err != nil {
		return fmt.Errorf("remove rules of %s: %w", firewall.Owners(es), err)
	}
	return nil
}

// RemoveNetwork deletes the rules of n's bridge, in both families, and the chains
// without rules then. Only n.Guard, or without one n.Name, counts. A missing rule is
// success.
func (f *Firewall) RemoveNetwork(ctx context.Context, n firewall.Network) error {
	if err := f.remove(ctx, n.GuardKey()); err != nil {
		return fmt.Errorf("remove rules of network %s: %w", n.Name, err)
	}
	return nil
}

// RemoveLast is Remove and then RemoveNetwork.
func (f *Firewall) RemoveLast(ctx context.Context, n firewall.Network, e firewall.Endpoint) error {
	if err := f.Remove(ctx, e); err != nil {
		return err
	}
	return f.RemoveNetwork(ctx, n)
}

func (f *Firewall) remove(ctx context.Context, owners ...string) error {
	keys := make([]string, len(owners))
	for i, owner := range owners {
		if err := firewall.CheckOwner(owner); err != nil {
			return fmt.Errorf("owner %w", err)
		}
		keys[i] = firewall.Key(owner)
	}
	return f.change(ctx, func() (bool, error) {
		var steps []step
		for _, fam := range bothFamilies() {
			snap, err := save(ctx, fam)
			if errors.Is(err, firewall.ErrUnsupported) { // what cannot be held is not there
				continue
			}
			if err != nil {
				return false, err
			}
			gone := slices.DeleteFunc(snap.owned(), func(r rule) bool { return !slices.Contains(keys, r.owner()) })
			steps = append(steps, step{fam, replace(snap, gone, nil)})
		}
		return execute(ctx, steps)
	})
}

// List returns the owners of all rules of endpoints, sorted, each once, in the
// form of firewall.Key. Without iptables there are none.
func (f *Firewall) List(ctx context.Context) ([]string, error) {
	var all []string
	for _, fam := range bothFamilies() {
		snap, err := save(ctx, fam)
		if errors.Is(err, firewall.ErrUnsupported) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list owners of rules: %w", err)
		}
		for _, r := range snap.owned() {
			if owner := r.owner(); owner != "" && !r.ofNetwork() {
				all = append(all, owner)
			}
		}
	}
	sorting.Ordered(all)
	return slices.Compact(all), nil
}

// Available returns firewall.ErrUnsupported, naming iptables, where it is
// missing, older than 1.6.2, which cannot wait for its turn, or without its
// part in the kernel. It changes nothing.
func (f *Firewall) Available() error {
	ctx := context.Background()
	text, err := run(ctx, "iptables", "", "--version")
	if err != nil {
		return fmt.Errorf("iptables: %w: %w", firewall.ErrUnsupported, err)
	}
	// 1.6.2 is the first whose iptables-restore knows --wait.
	if v := version(text); slices.Compare(v[:], []int{1, 6, 2}) < 0 {
		return fmt.Errorf("iptables %d.%d.%d: %w: want 1.6.2 or later", v[0], v[1], v[2], firewall.ErrUnsupported)
	}
	if _, err := run(ctx, "iptables-save", "", "-t", "filter"); err != nil {
		return fmt.Errorf("iptables: %w: %w", firewall.ErrUnsupported, err)
	}
	return nil
}

// version reads "iptables v1.8.9 (nf_tables)"; what is not a number is 0.
func version(text string) (v [3]int) {
	text, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimSpace(text), "iptables v"), " ")
	for i, n := range strings.SplitN(text, ".", len(v)) {
		v[i], _ = strconv.Atoi(n)
	}
	return v
}
