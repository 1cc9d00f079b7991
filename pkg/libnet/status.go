package libnet

import (
	"context"
	"errors"
	"fmt"

	"github.com/libnet-cni/libnet/internal/kernel"
)

// Status says why no endpoint could be made now; nil if one could. It changes
// nothing.
func (n *Network) Status(ctx context.Context) error {
	errs := []error{n.bridgeStatus(ctx)}
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
// bridge that is not there yet is no obstacle, nor one that ADD will mend.
func (n *Network) bridgeStatus(ctx context.Context) error {
	err := n.c.bridges.VerifyBridge(ctx, kernel.Bridge{Name: n.config.Bridge})
	if errors.Is(err, kernel.ErrNotBridge) {
		return err
	}
	return nil
}
