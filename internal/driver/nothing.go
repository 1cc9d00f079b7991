package driver

import (
	"context"
	"os"
)

// Nothing is what drivers have in common that make no interface: all of Driver but
// Attach.
type Nothing struct{}

// NothingCapability is the capability of such a driver.
func NothingCapability() Capability {
	return Capability{Scope: Local, Single: true, NoInterface: true}
}

// Define refuses options and addresses.
func (Nothing) Define(_ context.Context, n Network) (Network, error) { return n, RefuseOptions(n) }

// Verify has nothing to compare.
func (Nothing) Verify(context.Context, Attachment) error { return nil }

// Detach has nothing to remove.
func (Nothing) Detach(context.Context, Attachment) error { return nil }

// Collect has nothing to remove.
func (Nothing) Collect(context.Context, Network, []Attachment, *os.File) error { return nil }
