// Package null is the driver of no network: a container that joins it has lo alone.
package null

import (
	"context"
	"fmt"
	"os"

	"github.com/libnet-cni/libnet/internal/driver"
	"github.com/libnet-cni/libnet/internal/model"
)

// Name of the driver.
const Name = "null"

// Capability of the driver.
func Capability() driver.Capability {
	return driver.Capability{Scope: driver.Local, Single: true, NoInterface: true}
}

// Driver makes nothing.
type Driver struct{}

var _ driver.Driver = Driver{}

// Define refuses options and addresses.
func (Driver) Define(_ context.Context, n driver.Network) (driver.Network, error) {
	return n, driver.RefuseOptions(n)
}

// Attach refuses the host's own namespace, which is not without a network.
func (Driver) Attach(_ context.Context, a driver.Attachment) (driver.Result, error) {
	if a.Host {
		return driver.Result{}, model.BadConfig("sandbox", fmt.Sprintf("%q", a.Netns), "the driver null needs a sandbox with a network namespace of its own")
	}
	return driver.Result{}, driver.RefuseAsked(a, Name)
}

// Verify has nothing to compare.
func (Driver) Verify(context.Context, driver.Attachment) error { return nil }

// Detach has nothing to remove.
func (Driver) Detach(context.Context, driver.Attachment) error { return nil }

// Collect has nothing to remove.
func (Driver) Collect(context.Context, driver.Network, []driver.Attachment, *os.File) error {
	return nil
}
