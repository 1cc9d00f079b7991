package plugin

import (
	"context"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/netconf"
)

// NewPool makes the pool that a configuration describes.
func NewPool(call *cni.Call, p *netconf.Pool) (address.IPAM, error) {
	if err := call.AllowAddresses(p.Families()); err != nil {
		return nil, err
	}
	if len(p.Wants) > 0 {
		pool, err := address.NewAutoPool(p.Config, p.Wants, p.Extra)
		return pool, p.NameError(err)
	}
	pool, err := address.NewPool(p.Config, p.Extra)
	return pool, p.NameError(err)
}

// WarnNearlyFull prints which range sets of a pool have reached ipam.warnAt.
func WarnNearlyFull(ctx context.Context, call *cni.Call, ipam address.IPAM) {
	if pool, ok := ipam.(*address.Pool); ok {
		if line := pool.NearlyFull(ctx); line != "" {
			call.Warn(line)
		}
	}
}
