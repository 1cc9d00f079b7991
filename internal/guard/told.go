package guard

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
)

// Any says that a bridge has a guard in nf_tables, by its index, or by what that lost.
func (k *Book) Any(ctx context.Context) (bool, error) {
	bridges, err := k.Index.Bridges()
	if err != nil {
		return false, err
	}
	for _, bridge := range bridges {
		b, err := k.Index.LockBridge(ctx, bridge, unix.LOCK_SH, state.OnlyExisting)
		if errors.Is(err, state.ErrNotFound) {
			continue
		}
		if err != nil {
			return false, err
		}
		all, err := readableGuards(b)
		b.Unlock()
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(all, func(g state.Guard) bool { return g.ID != nothing() && k.byNFTables(g) }) {
			return true, nil
		}
	}
	lost, err := k.Lost(ctx)
	return slices.ContainsFunc(lost, func(l Loss) bool { return slices.ContainsFunc(l.Guards, k.byNFTables) }), err
}

func (k *Book) byNFTables(g state.Guard) bool { return k.Rules.Of(g.Backend) == k.Rules.NFTables }

// Asked calls fn with what the index of a bridge asks of nf_tables, and does not where
// it asks for nothing there. Meanwhile no call changes the bridge's guard. The error is
// state.ErrCorrupt if a part of the index cannot be read.
func (k *Book) Asked(ctx context.Context, bridge string, fn func(want firewall.Network) error) error {
	b, err := k.Index.LockBridge(ctx, bridge, unix.LOCK_SH, state.OnlyExisting)
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer b.Unlock()
	guards, err := b.Guards()
	if err != nil || !slices.ContainsFunc(guards, k.byNFTables) {
		return err
	}
	want, err := joinGuards(plan.BridgeRules(bridge), guards)
	if err != nil {
		return err
	}
	return fn(want)
}
