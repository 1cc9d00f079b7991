// Package null is the driver of no network: a container that joins it has lo alone.
package null

import (
	"context"
	"fmt"

	"github.com/libnet-cni/libnet/internal/driver"
	"github.com/libnet-cni/libnet/internal/model"
)

// Name of the driver.
const Name = "null"

// Capability of the driver.
func Capability() driver.Capability { return driver.NothingCapability() }

// Driver makes nothing.
type Driver struct{ driver.Nothing }

var _ driver.Driver = Driver{}

// Attach refuses the host's own namespace, which is not without a network.
func (Driver) Attach(_ context.Context, a driver.Attachment) (driver.Result, error) {
	if a.Host {
		return driver.Result{}, model.BadConfig("sandbox", fmt.Sprintf("%q", a.Netns), "the driver null needs a sandbox with a network namespace of its own")
	}
	return driver.Result{}, driver.RefuseAsked(a, Name)
}
