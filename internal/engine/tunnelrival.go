package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
)

// clearWay dissolves networks of this host that stand in the way of this one's
// tunnel and have no attachment any more: those that span hosts and overlap it,
// or have its VNI. Such a network is what is left of one that got another name,
// or another subnet, since its last container went. One that has attachments, or
// that an agent keeps, is named in the error.
func (n *Network) clearWay(ctx context.Context) (cleared bool, err error) {
	recs, err := n.c.networks.Networks()
	if errors.Is(err, state.ErrCorrupt) {
		err = nil // set aside
	}
	errs := []error{err}
	for _, rec := range recs {
		if rec.Name == n.def.Name || rec.Driver != plan.DriverOverlay {
			continue
		}
		other, err := n.c.networkOf(rec)
		if err != nil || !n.rivals(other) {
			errs = append(errs, err)
			continue
		}
		kept, err := other.agentKeeps()
		if err == nil && !kept {
			kept = true // until it is alone
			err = n.c.endpoints.Alone(ctx, other.def.Name, func() error {
				kept = false
				return other.dissolveAlone(ctx)
			})
			if errors.Is(err, state.ErrInUse) {
				err = nil
			}
		}
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("network %q: %w", other.def.Name, err))
		case kept:
			errs = append(errs, fmt.Errorf("network %q of this host stands in the way: it has containers, or ln-agent keeps it (see lnctl network ls, ln-agent leave)", other.def.Name))
		default:
			cleared = true
		}
	}
	return cleared, errors.Join(errs...)
}

// rivals says that two networks cannot both have a tunnel.
func (n *Network) rivals(other *Network) bool {
	t, o := n.def.Config.Tunnel, other.def.Config.Tunnel
	if t.Port == o.Port && t.VNIOf(n.def.Name) == o.VNIOf(other.def.Name) {
		return true
	}
	return slices.ContainsFunc(t.Reach(), func(p netip.Prefix) bool { return slices.ContainsFunc(o.Reach(), p.Overlaps) })
}
