package either

import (
	"context"
	"errors"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/model"
)

// Of returns the backend that a record names.
func (b Backends) Of(backend string) Rules {
	if model.Backend(backend) == model.BackendIPTables {
		return b.IPTables
	}
	return b.NFTables
}

// Available says why a backend cannot hold rules; nil if it can.
func (b Backends) Available(which model.Backend) error {
	if which == model.BackendIPTables {
		return b.IPTables.Available()
	}
	err := b.NFTables.Available()
	if err != nil && which != model.BackendNFTables && b.IPTables.Available() == nil {
		return nil
	}
	return err
}

// both says whether either backend may hold rules, for want of a record.
func (b Backends) both(configured model.Backend) bool {
	return configured == model.BackendIPTables || b.IPTables.Used()
}

// Remove removes rules from the backend that a record names; if it names
// none, from those that may hold some.
func (b Backends) Remove(ctx context.Context, recorded string, configured model.Backend, fws ...firewall.Endpoint) error {
	if recorded != "" {
		return b.Of(recorded).Remove(ctx, fws...)
	}
	err := b.NFTables.Remove(ctx, fws...)
	if b.both(configured) {
		err = errors.Join(err, b.IPTables.Remove(ctx, fws...))
	}
	return err
}

// RemoveNetwork is Remove for what belongs to a network as a whole.
func (b Backends) RemoveNetwork(ctx context.Context, recorded string, configured model.Backend, fw firewall.Network) error {
	if recorded != "" {
		return b.Of(recorded).RemoveNetwork(ctx, fw)
	}
	err := b.NFTables.RemoveNetwork(ctx, fw)
	if b.both(configured) {
		err = errors.Join(err, b.IPTables.RemoveNetwork(ctx, fw))
	}
	return err
}

// RemoveLast is Remove and RemoveNetwork in one.
func (b Backends) RemoveLast(ctx context.Context, recorded string, configured model.Backend, n firewall.Network, e firewall.Endpoint) error {
	if recorded != "" {
		return b.Of(recorded).RemoveLast(ctx, n, e)
	}
	err := b.NFTables.RemoveLast(ctx, n, e)
	if b.both(configured) {
		err = errors.Join(err, b.IPTables.RemoveLast(ctx, n, e))
	}
	return err
}

// Owners lists the owners of rules, in the form of firewall.Key.
func (b Backends) Owners(ctx context.Context, configured model.Backend) ([]string, error) {
	all, err := b.NFTables.List(ctx)
	if b.both(configured) {
		more, iptErr := b.IPTables.List(ctx)
		all, err = append(all, more...), errors.Join(err, iptErr)
	}
	return all, err
}

// Intact says what is missing of the rules and of a network's elements; nil where
// the kernel has none.
func (b Backends) Intact(ctx context.Context, which model.Backend, n firewall.Network) error {
	err := b.Of(string(which)).Intact(ctx, n)
	if errors.Is(err, firewall.ErrUnsupported) {
		return nil // that is for Available
	}
	return err
}
