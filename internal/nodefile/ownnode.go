package nodefile

import (
	"net/netip"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/model"
)

// Own returns the address of the one node that is this host: the network
// namespace of the calling thread. It is a *ConfigError if none is, or several.
func Own(nodes []model.Node) (netip.Addr, error) {
	var all []netip.Addr
	for _, n := range nodes {
		all = append(all, n.Address)
	}
	own, err := host.LocalAddrs(all)
	switch {
	case err != nil:
		return netip.Addr{}, err
	case len(own) == 0:
		return netip.Addr{}, model.BadConfig("nodes", model.Brief(all), "none is an address of this host; one must be")
	case len(own) > 1:
		return netip.Addr{}, model.BadConfig("nodes", model.Brief(own), "these are all addresses of this host; one must be")
	}
	return own[0], nil
}

// IsLocal says whether an address is one of this host: of the network namespace
// of the calling thread.
func IsLocal(a netip.Addr) bool { return host.IsLocal(a) }
