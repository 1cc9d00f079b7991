// Package either has the two backends that can hold rules behind one interface, and finds
// the one that does.
package either

import (
	"context"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/iptables"
	"github.com/libnet-cni/libnet/internal/firewall/nft"
)

// Rules is what each backend does.
type Rules interface {
	Apply(context.Context, firewall.Network, firewall.Endpoint) (restored bool, err error)
	ApplyNetwork(context.Context, firewall.Network) error
	Verify(context.Context, firewall.Network, firewall.Endpoint) error
	Remove(context.Context, ...firewall.Endpoint) error
	RemoveNetwork(context.Context, firewall.Network) error
	RemoveLast(context.Context, firewall.Network, firewall.Endpoint) error
	List(context.Context) ([]string, error)
	CheckPorts(context.Context, firewall.Endpoint) error
	Intact(context.Context, firewall.Network) error
	Restore(context.Context) (changed bool, err error)
	Complete(context.Context) error
	Used() bool
	Available() error
}

// Both backends are Rules as they are: an adapter that embeds one would be linked beside it.
var (
	_ Rules = (*nft.Firewall)(nil)
	_ Rules = (*iptables.Firewall)(nil)
)

// Backends are the two.
type Backends struct{ NFTables, IPTables Rules }

// All returns both, nftables first.
func (b Backends) All() []Rules { return []Rules{b.NFTables, b.IPTables} }
