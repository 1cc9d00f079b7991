// Package guard holds what closes bridges: which networks have one, what they ask of it
// together, and when that may become weaker.
package guard

import (
	"context"

	"github.com/libnet-cni/libnet/internal/firewall/either"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/state"
)

// Book is what tells whose guard is on which bridge.
type Book struct {
	Index     Index
	Networks  Networks
	Endpoints Endpoints
	Bridges   Bridges
	Tunnels   Tunnels
	Links     life.Links
	Rules     either.Backends
}

// The records and rules that a Book looks at and changes.
type (
	// Networks are the records of networks.
	Networks interface {
		LoadNetwork(name string) (state.Network, error)
		Networks() ([]state.Network, error)
		Orphans() ([]string, error)
		Recorded(network string) bool
	}
	// Endpoints are the records of attachments.
	Endpoints interface {
		LoadEndpoint(network, containerID, ifName string) (state.Endpoint, error)
		AnyEndpoint(network string, is func(state.Endpoint) bool) (bool, error)
	}
	// Bridges are those of the kernel.
	Bridges interface {
		VerifyBridge(context.Context, link.Bridge) error
		RemoveBridge(ctx context.Context, name, alias string) error
		Bridges(ctx context.Context, prefix string) ([]link.Owned, error)
	}
	// Tunnels are those of the kernel.
	Tunnels interface {
		HasTunnel(name, alias string) (bool, error)
	}
)
