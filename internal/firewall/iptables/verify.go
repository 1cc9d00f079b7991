package iptables

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/tool"
)

// Verify changes nothing and returns what differs from the state after Apply,
// joined: firewall.ErrMissing with the chain or rule. Nil means nothing differs.
func (f *Firewall) Verify(ctx context.Context, n firewall.Network, e firewall.Endpoint) error {
	e = normal(e)
	if err := check(n, e); err != nil {
		return err
	}
	var found []error
	for _, fam := range familiesOf(e.Addrs) {
		wanted := plan(fam, n, e)
		if len(wanted) == 0 {
			continue
		}
		snap, err := save(ctx, fam)
		if err == nil {
			found = append(found, missingUnits(snap, wanted)...)
			err = missingRules(ctx, snap, wanted, &found)
		}
		if err != nil {
			return fmt.Errorf("verify rules of %s: %w", e.Owner, err)
		}
	}
	return errors.Join(found...)
}

func missing(f family, kind string, what any) error {
	return fmt.Errorf("%s %s %s: %w", f.command(), kind, what, firewall.ErrMissing)
}

func missingUnits(snap snapshot, wanted []rule) []error {
	var found []error
	for _, u := range layout(snap.family) {
		if !u.needed(wanted) {
			continue
		}
		for _, name := range u.chains {
			if !snap.hasChain(u.table, name) {
				found = append(found, missing(snap.family, "chain", u.table+" "+name))
			}
		}
		for _, r := range u.missing(snap) {
			if snap.hasChain(r.table, r.chain) && !slices.ContainsFunc(snap.chain(r.table, r.chain), r.equal) {
				found = append(found, missing(snap.family, "rule", r))
			}
		}
		for _, j := range u.jumps {
			if snap.position(u.table, j.from, j.to) == 0 {
				found = append(found, missing(snap.family, "rule", j.rule(u.table)))
			}
		}
	}
	return found
}

// missingRules compares words first. Where they differ, as words that the
// configuration chose may, iptables itself is asked.
func missingRules(ctx context.Context, snap snapshot, wanted []rule, found *[]error) error {
	there := snap.owned()
	for _, r := range wanted {
		if slices.ContainsFunc(there, r.equal) || !snap.hasChain(r.table, r.chain) {
			continue
		}
		exists, err := exists(ctx, snap.family, r)
		if err != nil {
			return err
		}
		if !exists {
			*found = append(*found, missing(snap.family, "rule", r))
		}
	}
	return nil
}

func exists(ctx context.Context, f family, r rule) (bool, error) {
	_, err := run(ctx, f.command(), "", append([]string{"--wait", lockWait, "-t", r.table, "-C", r.chain}, r.args...)...)
	var failed *tool.Error
	if errors.As(err, &failed) && failed.Code == exitNotThere {
		return false, nil
	}
	return err == nil, err
}
