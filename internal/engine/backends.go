package engine

import (
	"context"
	"errors"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/iptables"
	"github.com/libnet-cni/libnet/internal/firewall/nft"
	"github.com/libnet-cni/libnet/internal/model"
)

// nftablesRules is the nftables backend as a Controller uses it.
type nftablesRules struct{ *nft.Firewall }

var _ rules = nftablesRules{}

// Used is true: to ask costs no more than to know.
func (nftablesRules) Used() bool { return true }

// iptablesRules is the iptables backend as a Controller uses it.
type iptablesRules struct{ *iptables.Firewall }

var _ rules = iptablesRules{}

// Apply says whether our chains were missing, as ApplyReporting does.
func (r iptablesRules) Apply(ctx context.Context, n firewall.Network, e firewall.Endpoint) (restored bool, err error) {
	return r.ApplyReporting(ctx, n, e)
}

// Intact does not look: what it takes a process for, sample looks at.
func (iptablesRules) Intact(context.Context, firewall.Network) error { return nil }

// Restore does nothing: Apply compares every rule.
func (iptablesRules) Restore(context.Context) (bool, error) { return false, nil }

// Complete does nothing, likewise.
func (iptablesRules) Complete(context.Context) error { return nil }

// rulesOf returns the backend that a record names.
func (c *Controller) rulesOf(backend string) rules {
	if model.Backend(backend) == model.BackendIPTables {
		return c.iptables
	}
	return c.nftables
}

// rulesAvailable says why a backend cannot hold rules; nil if it can.
func (c *Controller) rulesAvailable(b model.Backend) error {
	if b == model.BackendIPTables {
		return c.iptables.Available()
	}
	err := c.nftables.Available()
	if err != nil && b != model.BackendNFTables && c.iptables.Available() == nil {
		return nil
	}
	return err
}

// both says whether either backend may hold rules, for want of a record.
func (c *Controller) both(configured model.Backend) bool {
	return configured == model.BackendIPTables || c.iptables.Used()
}

// removeBy removes rules from the backend that a record names; if it names
// none, from those that may hold some.
func (c *Controller) removeBy(ctx context.Context, recorded string, configured model.Backend, fw firewall.Endpoint) error {
	if recorded != "" {
		return c.rulesOf(recorded).Remove(ctx, fw)
	}
	err := c.nftables.Remove(ctx, fw)
	if c.both(configured) {
		err = errors.Join(err, c.iptables.Remove(ctx, fw))
	}
	return err
}

// removeNetworkBy is removeBy for what belongs to a network as a whole.
func (c *Controller) removeNetworkBy(ctx context.Context, recorded string, configured model.Backend, fw firewall.Network) error {
	if recorded != "" {
		return c.rulesOf(recorded).RemoveNetwork(ctx, fw)
	}
	err := c.nftables.RemoveNetwork(ctx, fw)
	if c.both(configured) {
		err = errors.Join(err, c.iptables.RemoveNetwork(ctx, fw))
	}
	return err
}

// removeLastBy is removeBy and removeNetworkBy in one.
func (c *Controller) removeLastBy(ctx context.Context, recorded string, configured model.Backend, n firewall.Network, e firewall.Endpoint) error {
	if recorded != "" {
		return c.rulesOf(recorded).RemoveLast(ctx, n, e)
	}
	err := c.nftables.RemoveLast(ctx, n, e)
	if c.both(configured) {
		err = errors.Join(err, c.iptables.RemoveLast(ctx, n, e))
	}
	return err
}

// owners lists the owners of rules, in the form of firewall.Key.
func (c *Controller) owners(ctx context.Context, configured model.Backend) ([]string, error) {
	all, err := c.nftables.List(ctx)
	if c.both(configured) {
		more, iptErr := c.iptables.List(ctx)
		all, err = append(all, more...), errors.Join(err, iptErr)
	}
	return all, err
}
