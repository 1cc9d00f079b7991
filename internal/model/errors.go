package model

import (
	"fmt"

	"github.com/libnet-cni/libnet/internal/sentinel"
)

// Errors that callers tell apart with errors.Is. ErrExists is true of everything
// that exists already, and ErrInUse of everything that is in use.
var (
	ErrExists         error = &exists
	ErrInUse          error = &inUse
	ErrForbidden      error = &sentinel.Error{Text: "not possible with this driver"}
	ErrUnknownDriver  error = &sentinel.Error{Text: "unknown network driver"}
	ErrInvalidName    error = &sentinel.Error{Text: "invalid name"}
	ErrNetworkExists  error = &kindError{"network exists", &exists}
	ErrNetworkInUse   error = &kindError{"network has endpoints", &inUse}
	ErrEndpointExists error = &kindError{"endpoint exists", &exists}
	ErrEndpointJoined error = &kindError{"endpoint has joined a sandbox", &inUse}
	ErrNotJoined      error = &sentinel.Error{Text: "endpoint has not joined a sandbox"}
	ErrSandboxExists  error = &kindError{"sandbox exists", &exists}
	ErrNotFound       error = &sentinel.Error{Text: "not found"}
	ErrBadNetns       error = &sentinel.Error{Text: "no network namespace"}
	ErrOwnNamespace   error = &sentinel.Error{Text: "the container's network namespace is the host's own"}
	ErrForeignIPAM    error = &sentinel.Error{Text: "addresses belong to an IPAM plugin that only its runtime can call"}
	ErrNoAddresses    error = &sentinel.Error{Text: "the IPAM gave no address"}
	ErrDifferent      error = &sentinel.Error{Text: "differs from what was made"}
	ErrLimited        error = &limited
	ErrMaybeOpen      error = &kindError{"containers may be cut off, or open to what their network shuts out", &limited}
	ErrNotReady       error = &sentinel.Error{Text: "the network has no block on this host yet"}
)

// The general ones of those that kindError wraps.
var (
	exists  = sentinel.Error{Text: "exists"}
	inUse   = sentinel.Error{Text: "in use"}
	limited = sentinel.Error{Text: "containers of the network may be cut off"}
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
