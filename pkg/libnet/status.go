package libnet

import (
	"context"
	"errors"
	"fmt"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/kernel"
)

// Status says why no endpoint could be made now; nil if one could. It changes
// nothing. If the endpoints there are may be cut off, the error is ErrLimited.
func (n *Network) Status(ctx context.Context) (err error) {
	leave, err := n.c.enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	errs := []error{n.bridgeStatus(ctx), n.tunnelStatus(), n.limits(ctx)}
	if err := n.c.sandboxes.Writable(); err != nil {
		errs = append(errs, fmt.Errorf("state directory: %w", err))
	}
	if n.config.needsRules() {
		errs = append(errs, n.c.rulesAvailable(n.config.Backend))
	}
	switch {
	case n.auto != nil:
		errs = append(errs, n.auto.Status(ctx))
	case n.ipam != nil:
		errs = append(errs, n.ipam.Status(ctx))
	}
	return errors.Join(errs...)
}

// bridgeStatus says whether the bridge's name is held by something else. A
// bridge that is not there yet is no obstacle.
func (n *Network) bridgeStatus(ctx context.Context) error {
	err := n.c.bridges.VerifyBridge(ctx, kernel.Bridge{Name: n.config.Bridge})
	if errors.Is(err, kernel.ErrNotBridge) {
		return err
	}
	return nil
}

// limits says what of the network is gone that its endpoints need. The next
// Attach mends it, and Repair the rules; until then they are cut off.
func (n *Network) limits(ctx context.Context) error {
	has, err := n.c.endpoints.HasReady(n.name)
	if err != nil {
		return err
	}
	if !has {
		if n.config.Tunnel.Agent { // it is there before the first endpoint
			if err := n.verifyTunnel(ctx); err != nil {
				return fmt.Errorf("%w: %w", ErrLimited, err)
			}
		}
		return nil
	}
	errs := []error{n.c.bridges.VerifyBridge(ctx, kernel.Bridge{Name: n.config.Bridge}), n.verifyTunnel(ctx)}
	if n.config.needsRules() {
		err := n.c.rulesOf(string(n.config.Backend)).Intact(ctx)
		if !errors.Is(err, firewall.ErrUnsupported) { // that is for rulesAvailable
			errs = append(errs, err)
		}
	}
	if n.config.hasGateway() && !n.config.internal() {
		errs = append(errs, n.forwarding())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrLimited, err)
	}
	return nil
}

// forwarding says whether the host forwards what the network's endpoints send.
// Which families they have, the pool tells; of another IPAM nothing is known.
func (n *Network) forwarding() error {
	v4, v6, err := n.c.bridges.Forwarding()
	if err != nil {
		return err
	}
	want4, want6 := n.ownGateways().families()
	var errs []error
	if want4 && !v4 {
		errs = append(errs, errors.New("net.ipv4.ip_forward is 0: set it to 1"))
	}
	if want6 && !v6 {
		errs = append(errs, errors.New("net.ipv6.conf.all.forwarding is 0: set it to 1"))
	}
	return errors.Join(errs...)
}
