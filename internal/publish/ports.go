// Package publish knows whose the ports of this host are and which address they lead to:
// it chooses them, applies the rules of an attachment, hands ports over to the next
// attachment of a container, and takes those of the dead.
package publish

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/firewall/conntrack"
	"github.com/libnet-cni/libnet/internal/guard"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
)

// Ports are those of this host.
type Ports struct {
	Boot         string // boot ID
	Endpoints    Records
	Publications *state.Dir // records of Publishers
	Networks     Networks
	Standby      Standbys
	Guard        *guard.Book
	Host         Host
	Flush        func(context.Context, conntrack.Filter) error
}

// The records and rules that Ports look at and change.
type (
	// Records are those of attachments.
	Records interface {
		Own(ctx context.Context, network, containerID, ifName string, create state.Creation) (release func(), err error)
		LoadEndpoint(network, containerID, ifName string) (state.Endpoint, error)
		Endpoints(network string) ([]state.Endpoint, error)
		EndpointNetworks() ([]string, error)
		HasEndpoint(network string, but state.Endpoint) (bool, error)
		AnyEndpoint(network string, is func(state.Endpoint) bool) (bool, error)
	}
	// Networks are the records of networks.
	Networks interface {
		LoadNetwork(name string) (state.Network, error)
	}
	// Host is the kernel's part.
	Host interface {
		freePorts
		DeviceTo(netip.Addr) (string, error)
		SetRouteLocalnet(dev string, on bool) (changed bool, err error)
		SetHairpin(netns, ifName string) error
		RouteLocalnet(dev string) (bool, error)
	}
)

// network returns a network by its record.
func (k *Ports) network(name string) (*plan.Network, error) {
	rec, err := k.Networks.LoadNetwork(name)
	if errors.Is(err, state.ErrNotFound) {
		return nil, fmt.Errorf("network %q: %w", name, model.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return plan.OfRecord(rec)
}
