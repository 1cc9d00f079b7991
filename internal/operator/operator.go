// Package operator is what a person, or ln-agent, asks of a host: what is there, what is
// wrong, and what was lost and can be written anew by what the kernel tells. No plugin
// links it.
package operator

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/firewall/either"
	"github.com/libnet-cni/libnet/internal/firewall/nft"
	"github.com/libnet-cni/libnet/internal/guard"
	"github.com/libnet-cni/libnet/internal/kernel"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/publish"
	"github.com/libnet-cni/libnet/internal/state"
)

// Operator is a Controller, and what an operator asks beside. It works in the same
// network namespace.
type Operator struct {
	*engine.Controller
	ports    *publish.Ports
	rules    either.Backends
	dir      *state.Dir
	networks networks
	kernel   *kernel.Handle
	nft      *nft.Firewall
	boot     string
	Options
}

// networks are the records of networks.
type networks interface {
	CreateNetwork(state.Network) error
	SwapNetwork(old, n state.Network) (swapped bool, err error)
	LoadNetwork(name string) (state.Network, error)
	HasNetwork(name, fingerprint string) bool
	Networks() ([]state.Network, error)
}

// Options are where an Operator looks.
type Options struct {
	StateDir string // of records; empty: engine.DefaultStateDir
	DataDir  string // of the leases of new pools; empty: address.DefaultDataDir
	// Configurations returns the configuration of a network of which neither a record
	// nor rules are left; false: there is none. Nil: none are known.
	Configurations func(network string) (model.NetworkConfig, bool, error)
	// Elsewhere returns the state directory that a network's configuration names, if that
	// is another one than StateDir. Nil: all networks are of StateDir.
	Elsewhere func(network string) string
}

// Open returns the Operator of the calling thread's network namespace. It opens netlink
// sockets and writes nothing. More is for its Controller.
func Open(opts Options, more ...engine.Option) (*Operator, error) {
	opts.StateDir = cmp.Or(opts.StateDir, engine.DefaultStateDir)
	opts.DataDir = cmp.Or(opts.DataDir, address.DefaultDataDir)
	c, err := engine.New(append([]engine.Option{engine.WithStateDir(opts.StateDir), engine.WithDataDir(opts.DataDir), engine.SpansHosts()}, more...)...)
	if err != nil {
		return nil, err
	}
	boot, bootErr := life.BootID()
	handle, err := kernel.Open()
	if err := errors.Join(bootErr, err); err != nil {
		c.Close()
		return nil, err
	}
	ports, dir := c.Ports(), state.New(opts.StateDir)
	return &Operator{
		Controller: c, ports: ports, rules: ports.Guard.Rules, dir: dir, networks: dir, kernel: handle,
		nft: nft.New(), boot: boot, Options: opts,
	}, nil
}

// Close closes the netlink sockets, after the last call has returned.
func (o *Operator) Close() {
	o.Controller.Close()
	o.kernel.Close()
	_ = o.nft.Close()
}

// elsewhere returns the state directory that has the records of a network that this one
// has none of; empty: it is of this one.
func (o *Operator) elsewhere(network string) string {
	if o.Elsewhere == nil || o.dir.Recorded(network) {
		return ""
	}
	return o.Elsewhere(network)
}

// links returns the host's ends of attachments of this state directory, and the names of
// the networks of others that have some.
func (o *Operator) links(ctx context.Context) (links map[model.ID]link.Owned, others map[string]string, err error) {
	links, err = life.LinksOf(ctx, o.kernel, model.OwnerPrefix)
	others = map[string]string{}
	for id := range links {
		if dir := o.elsewhere(id.Network); dir != "" {
			others[id.Network] = dir
			delete(links, id)
		}
	}
	return links, others, err
}

// losses are those of guards, without what another state directory knows.
func (o *Operator) losses(ctx context.Context) ([]guard.Loss, error) {
	all, err := o.ports.Guard.Lost(ctx)
	for i := range all {
		all[i].Untold = slices.DeleteFunc(all[i].Untold, func(l link.Owned) bool {
			id, ok := model.ParseOwner(l.Owner)
			return ok && o.elsewhere(id.Network) != ""
		})
	}
	return slices.DeleteFunc(all, func(l guard.Loss) bool { return len(l.Guards) == 0 && len(l.Untold) == 0 }), err
}

// dead says whether an attachment's container is provably gone.
func (o *Operator) dead(rec state.Endpoint) bool { return life.OfRecord(rec).Dead(o.boot) }
