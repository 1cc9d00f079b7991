package model

import (
	"errors"
	"fmt"
)

// Errors that callers tell apart with errors.Is. ErrExists is true of everything
// that exists already, and ErrInUse of everything that is in use.
var (
	ErrExists         = errors.New("exists")
	ErrInUse          = errors.New("in use")
	ErrForbidden      = errors.New("not possible with this driver")
	ErrUnknownDriver  = errors.New("unknown network driver")
	ErrInvalidName    = errors.New("invalid name")
	ErrNetworkExists  = error(&kindError{"network exists", ErrExists})
	ErrNetworkInUse   = error(&kindError{"network has endpoints", ErrInUse})
	ErrEndpointExists = error(&kindError{"endpoint exists", ErrExists})
	ErrEndpointJoined = error(&kindError{"endpoint has joined a sandbox", ErrInUse})
	ErrNotJoined      = errors.New("endpoint has not joined a sandbox")
	ErrSandboxExists  = error(&kindError{"sandbox exists", ErrExists})
	ErrNotFound       = errors.New("not found")
	ErrBadNetns       = errors.New("no network namespace")
	ErrOwnNamespace   = errors.New("the container's network namespace is the host's own")
	ErrForeignIPAM    = errors.New("addresses belong to an IPAM plugin that only its runtime can call")
	ErrNoAddresses    = errors.New("the IPAM gave no address")
	ErrDifferent      = errors.New("differs from what was made")
	ErrLimited        = errors.New("containers of the network may be cut off")
	ErrMaybeOpen      = error(&kindError{"containers may be cut off, or open to what their network shuts out", ErrLimited})
	ErrNotReady       = errors.New("the network has no block on this host yet")
)

// kindError is an error that is also another, more general one.
type kindError struct {
	text string
	kind error
}

func (e *kindError) Error() string { return e.text }

func (e *kindError) Unwrap() error { return e.kind }

// ConfigError says which key of a configuration is wrong. Keys are those of
// the CNI configuration; the fields of NetworkConfig name theirs.
type ConfigError struct {
	Key   string // "mtu"
	Value string // as it was given, "70000"
	Want  string // what would be right: "want 68 to 65535"
}

// Error names key, value and what would be right.
func (e *ConfigError) Error() string {
	return fmt.Sprintf("%s: %s: %s", e.Key, e.Value, e.Want)
}

// UnsupportedError says that this kernel cannot do what a key of the
// configuration asks for.
type UnsupportedError struct {
	Key   string // "vlan"
	Value string // as it was given, "100"
	Err   error  // names the feature that is missing
}

// Error names key, value and what the kernel lacks.
func (e *UnsupportedError) Error() string { return fmt.Sprintf("%s: %s: %v", e.Key, e.Value, e.Err) }

// Unwrap returns what the kernel lacks.
func (e *UnsupportedError) Unwrap() error { return e.Err }

// BadConfig returns a *ConfigError.
func BadConfig(key string, value any, want string) error {
	return &ConfigError{Key: key, Value: fmt.Sprintf("%v", value), Want: want}
}
