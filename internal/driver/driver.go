// Package driver has what all kinds of networks have in common: a capability, and
// for those that internal/engine does not make itself, one small interface and the
// life of their networks and endpoints around it.
//
// Each driver has a folder of its own below this one. The drivers "bridge" and
// "overlay" say how their options become a configuration of internal/engine, which
// makes their networks. "host" and "null" make nothing. Every other name is a CNI
// plugin, which cniplugin runs.
package driver

import (
	"context"
	"encoding/json"
	"os"

	"github.com/libnet-cni/libnet/internal/model"
)

// Scope is how far a network reaches.
type Scope string

// The scopes.
const (
	Local  Scope = "local"  // this host
	Global Scope = "global" // several hosts
)

// Capability is what a driver can do, and what its networks are.
type Capability struct {
	// Scope of the driver's networks; empty: each network says its own.
	Scope Scope
	// Single says that there is one network of the driver, which stays.
	Single bool
	// NoInterface says that containers get no interface.
	NoInterface bool
}

// CheckScope refuses a scope that a network of this driver cannot have; empty is
// the driver's own. The error is a *model.ConfigError.
func (c Capability) CheckScope(driver string, asked Scope) (Scope, error) {
	switch {
	case asked != "" && asked != Local && asked != Global:
		return "", model.BadConfig("scope", string(asked), `want "local" or "global"`)
	case c.Scope == "" && asked == "":
		return Local, nil
	case c.Scope == "" || asked == "" || asked == c.Scope:
		return max(asked, c.Scope), nil // one of them is empty, or they are equal
	case c.Scope == Global:
		return "", model.BadConfig("scope", string(asked), "networks of the driver "+driver+" span hosts, and cannot be made local")
	}
	return "", model.BadConfig("scope", string(asked), "networks of the driver "+driver+" are of this host, and cannot span hosts")
}

// Driver makes the interfaces of one kind of network. Attach is called once for an
// attachment, and Detach at least once for each Attach that was begun, whether it
// ended or not. All are called in the network namespace of the host.
type Driver interface {
	// Define completes a network or refuses it. It changes nothing.
	Define(context.Context, Network) (Network, error)
	Attach(context.Context, Attachment) (Result, error)
	// Verify changes nothing and says what differs from what Attach made.
	Verify(context.Context, Attachment) error
	// Detach removes whatever Attach made. Missing is success.
	Detach(context.Context, Attachment) error
	// Collect removes what belongs to no attachment of keep.
	Collect(ctx context.Context, n Network, keep []Attachment, lock *os.File) error
}

// Network is a network as its record has it.
type Network struct {
	Name, Driver string
	Scope        Scope
	Labels       map[string]string `json:",omitempty"`
	Options      map[string]any    `json:",omitempty"`
	// IPAM is what the plugin is told of addresses: with the key "type"; nil:
	// nothing.
	IPAM map[string]any `json:",omitempty"`
	// Conf is the configuration of a plugin; nil: the driver has none.
	Conf json.RawMessage `json:",omitempty"`
}

// Attachment is one container in a network.
type Attachment struct {
	Network             Network
	ContainerID, IfName string
	Netns               string // path of the container's namespace; empty: it is gone
	Host                bool   // that namespace is the host's own
	Asked               Asked
	// Conf is Network.Conf of the time of Attach, with what was asked.
	Conf json.RawMessage
	// Result is what the plugin answered to Attach; nil: it did not, or is none.
	Result json.RawMessage
	// Lock is a file that every process started for the attachment inherits: as
	// long as one has it open no other caller is at work on the attachment.
	Lock *os.File
}

// Asked is what the caller asks for one attachment, by the keys of the CNI
// convention runtimeConfig: "mac", "ips", "portMappings".
type Asked map[string]any

// Result is what a container got.
type Result struct {
	model.Addressing
	MAC string
	MTU int // bytes; 0: unknown
	Raw json.RawMessage
}
