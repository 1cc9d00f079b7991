package libnet

import (
	"errors"

	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/publish"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// Errors that callers tell apart with errors.Is.
var (
	ErrNotFound      = model.ErrNotFound
	ErrExists        = model.ErrExists      // a network, endpoint or sandbox of that name
	ErrInUse         = model.ErrInUse       // a network with endpoints, an endpoint in a sandbox
	ErrNotJoined     = model.ErrNotJoined   // an endpoint that is in no sandbox
	ErrDifferent     = model.ErrDifferent   // what is there differs from what was made
	ErrInvalidName   = model.ErrInvalidName // of a network, an endpoint, a sandbox or an interface
	ErrUnknownDriver = model.ErrUnknownDriver
	ErrForbidden     = model.ErrForbidden     // what the driver never does
	ErrExhausted     = ipamstore.ErrExhausted // no address, or no subnet, is left
)

// ConfigError says which option is wrong: its Key, as the CNI configuration has it, the
// Value that was given, and what would be right, as Want. All are strings.
type ConfigError = model.ConfigError

// PortHeldError says that a port of the host is published for another container: the
// Port, as "tcp 0.0.0.0:8080", and its Owner, "libnet:<network>/<name>/<interface>".
type PortHeldError = publish.PortHeldError

// oneConfigError turns what the address pool says of its configuration into a
// *ConfigError.
func oneConfigError(err error) error {
	var bad *ipamstore.ConfigError
	if errors.As(err, &bad) {
		return &ConfigError{Key: "ipam." + bad.Key, Value: bad.Value, Want: bad.Msg}
	}
	return err
}
