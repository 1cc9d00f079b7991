package ipamstore

import (
	"fmt"

	"github.com/libnet-cni/libnet/internal/flock"
	"github.com/libnet-cni/libnet/internal/pooldir"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

var (
	// ErrExhausted is returned when a set has no free address. The message
	// says how many are held, which owners hold most, and what frees them.
	ErrExhausted error = &sentinel.Error{Text: "no address left"}
	// ErrTaken is returned when a requested address belongs to another owner;
	// the message names it.
	ErrTaken error = &sentinel.Error{Text: "address is taken"}
	// ErrInvalid is returned for a request that no state of the pool can
	// satisfy: a bad owner, or an address outside all sets.
	ErrInvalid error = &sentinel.Error{Text: "invalid request"}
	// ErrLocked is returned when the lock was not obtained in time; the
	// message names the process that holds it. Trying again later may help.
	ErrLocked = flock.ErrLocked
	// ErrNotFound is returned by Verify and Lookup for an owner without
	// leases.
	ErrNotFound error = &sentinel.Error{Text: "no lease"}
	// ErrMismatch is returned by Verify for an owner with other leases than
	// expected.
	ErrMismatch error = &sentinel.Error{Text: "leases differ"}
	// ErrIO is returned when the directory cannot be read or written; the
	// error of the operating system can be had with errors.Is as well.
	ErrIO = pooldir.ErrIO
)

// ConfigError says what is wrong with a Config. Keys are spelt as in network
// configuration files, for example "ranges[0][1].rangeStart".
type ConfigError struct {
	Key, Value, Msg string
}

// Error names key, value and reason.
func (e *ConfigError) Error() string {
	return fmt.Sprintf("%s %q: %s", e.Key, e.Value, e.Msg)
}
