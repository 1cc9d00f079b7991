// Package host is the driver of the host's own network: a container that joins it
// is in the host's network namespace, and gets nothing else.
package host

import (
	"context"
	"fmt"

	"github.com/libnet-cni/libnet/internal/driver"
	"github.com/libnet-cni/libnet/internal/model"
)

// Name of the driver.
const Name = "host"

// Capability of the driver.
func Capability() driver.Capability { return driver.NothingCapability() }

// Driver makes nothing.
type Driver struct{ driver.Nothing }

var _ driver.Driver = Driver{}

// Attach refuses every namespace but the host's own.
func (Driver) Attach(_ context.Context, a driver.Attachment) (driver.Result, error) {
	if err := driver.RefuseAsked(a, Name); err != nil {
		return driver.Result{}, err
	}
	if !a.Host {
		return driver.Result{}, model.BadConfig("sandbox", fmt.Sprintf("%q", a.Netns), "the driver host needs a sandbox in the host's own network namespace")
	}
	return driver.Result{}, nil
}
