package publish

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/state"
)

// Verify compares the rules of an attachment; ports that it waits for have
// to lead to another attachment of the container.
func (k *Ports) Verify(ctx context.Context, rec state.Endpoint, n firewall.Network, e firewall.Endpoint) error {
	by := k.Guard.Rules.Of(rec.Backend)
	standby, err := k.Waiting(rec)
	if len(standby) == 0 || err != nil {
		return errors.Join(by.Verify(ctx, n, e), err)
	}
	free, err := k.verifyStandby(ctx, rec, e, standby)
	if err != nil {
		return err
	}
	if !free {
		e.Standby = standby
	}
	return by.Verify(ctx, n, e) // what waits and is free may be in place already
}

// verifyStandby says whether some port of standby is no other attachment's. One
// of another container is an error.
func (k *Ports) verifyStandby(ctx context.Context, rec state.Endpoint, e firewall.Endpoint, standby []firewall.PortMap) (free bool, err error) {
	e.Ports, e.ConditionsIPv4, e.ConditionsIPv6, e.Handover = standby, nil, nil, nil
	for i := range e.Ports {
		e.Ports[i].ContainerPort = e.Ports[i].HostPort
	}
	e.Standby = nil
	for range maxDead {
		err := k.checkPorts(ctx, e)
		var held *firewall.PortHeldError
		if !errors.As(err, &held) {
			return anyLeft(e.Ports, e.Standby, e.Addrs), err
		}
		same, findErr := k.sameContainer(ctx, rec, held.Owner)
		if findErr != nil || !same {
			return false, errors.Join(&PortHeldError{Owner: held.Owner, Port: held.Port}, findErr)
		}
		e.Standby = append(e.Standby, held.All...)
	}
	return false, nil
}

// checkPorts asks both backends whose ports they are.
func (k *Ports) checkPorts(ctx context.Context, e firewall.Endpoint) error {
	for _, by := range k.Guard.Rules.All() {
		if !by.Used() {
			continue
		}
		if err := by.CheckPorts(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// anyLeft says that some of ports is not in standby, for the families of addrs.
func anyLeft(ports, standby []firewall.PortMap, addrs []netip.Addr) bool {
	return slices.ContainsFunc(addrs, func(a netip.Addr) bool {
		left, err := firewall.Resolve(ports, standby, a.Unmap().Is4())
		return len(left) > 0 || err != nil
	})
}
