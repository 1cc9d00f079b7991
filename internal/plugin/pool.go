package plugin

import (
	"context"

	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/netconf"
)

// NewPool makes the pool that a configuration describes.
func NewPool(call *cni.Call, p *netconf.Pool) (engine.IPAM, error) {
	if err := call.AllowAddresses(p.Families()); err != nil {
		return nil, err
	}
	if len(p.Wants) > 0 {
		pool, err := engine.NewAutoPool(p.Config, p.Wants, p.Extra)
		return pool, p.NameError(err)
	}
	pool, err := engine.NewPool(p.Config, p.Extra)
	return pool, p.NameError(err)
}

// WarnNearlyFull prints which range sets of a pool have reached ipam.warnAt.
func WarnNearlyFull(ctx context.Context, call *cni.Call, ipam engine.IPAM) {
	if pool, ok := ipam.(*engine.Pool); ok {
		if line := pool.NearlyFull(ctx); line != "" {
			call.Warn(line)
		}
	}
}
