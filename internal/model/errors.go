package model

import (
	"errors"
	"fmt"
)

// Errors that callers tell apart with errors.Is.
var (
	ErrUnknownDriver  = errors.New("unknown network driver")
	ErrInvalidName    = errors.New("invalid name")
	ErrNetworkExists  = errors.New("network exists")
	ErrNetworkInUse   = errors.New("network has endpoints")
	ErrEndpointExists = errors.New("endpoint exists")
	ErrEndpointJoined = errors.New("endpoint has joined a sandbox")
	ErrNotJoined      = errors.New("endpoint has not joined a sandbox")
	ErrSandboxExists  = errors.New("sandbox exists")
	ErrNotFound       = errors.New("not found")
	ErrBadNetns       = errors.New("no network namespace")
	ErrOwnNamespace   = errors.New("the container's network namespace is the host's own")
	ErrForeignIPAM    = errors.New("addresses belong to an IPAM plugin that only its runtime can call")
	ErrNoAddresses    = errors.New("the IPAM gave no address")
	ErrDifferent      = errors.New("differs from what was made")
	ErrLimited        = errors.New("containers of the network may be cut off")
	ErrNotReady       = errors.New("the network has no block on this host yet")
)

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

func BadConfig(key string, value any, want string) error {
	return &ConfigError{Key: key, Value: fmt.Sprintf("%v", value), Want: want}
}
