package firewall

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/sentinel"
)

// Errors of this package, for errors.Is.
var (
	// ErrUnsupported says that the kernel has no nf_tables, or lacks a part of it that the rules need.
	ErrUnsupported error = &sentinel.Error{Text: "not supported by this kernel"}
	// ErrInvalid says that a Network or an Endpoint cannot be put into rules as it stands.
	ErrInvalid error = &sentinel.Error{Text: "invalid"}
	// ErrMissing is what Verify reports for a table, chain, rule or element that is not there.
	ErrMissing error = &sentinel.Error{Text: "missing"}
	// ErrChanged is what Verify reports for a rule that does not do what we wrote.
	ErrChanged error = &sentinel.Error{Text: "is not what was written"}
	// ErrOtherRelease says that another release keeps packets out by an element that
	// this one has no form for: its rules stay until that release removes it.
	ErrOtherRelease error = &sentinel.Error{Text: "of another release, and this one has no form for it"}
	// ErrConflict is what Verify reports for an element that another owner holds.
	ErrConflict error = &sentinel.Error{Text: "held by another owner"}
)

// PortHeldError is what Apply returns when another owner has published a port
// that the endpoint asks for. Nothing is changed then.
type PortHeldError struct {
	Owner string // in the form of Key
	Port  string // a part of the endpoint's that is held, "tcp 0.0.0.0:8080"
	// All are the ports of the host that this owner has of the endpoint's.
	All []PortMap
}

// Error names the port and its owner.
func (e *PortHeldError) Error() string {
	return fmt.Sprintf("host port %s is published by %q", e.Port, e.Owner)
}

// Is makes it an ErrConflict.
func (e *PortHeldError) Is(target error) bool { return target == ErrConflict }

// HeldError is what Apply returns when another owner has an element for an
// address or an interface of the endpoint. Nothing is changed then.
type HeldError struct {
	Owner   string // in the form of Key
	Element string // as "inet libnet masquerade4 { 10.1.0.2 . br0 }"
}

// Error names the element and its owner.
func (e *HeldError) Error() string {
	return fmt.Sprintf("element %s belongs to %q", e.Element, e.Owner)
}

// Is makes it an ErrConflict.
func (e *HeldError) Is(target error) bool { return target == ErrConflict }

// OverlapError says that two port mappings of one endpoint are for the same
// port, are equally specific, and lead to different ports of the container.
type OverlapError struct {
	First, Second int    // places in the list of mappings
	Port          string // "tcp 0.0.0.0:8080"
}

// Error names the port.
func (e *OverlapError) Error() string {
	return fmt.Sprintf("port %s leads to two ports of the container", e.Port)
}

// Is makes it an ErrInvalid.
func (e *OverlapError) Is(target error) bool { return target == ErrInvalid }

// ConditionError says that nft did not take conditions, or is missing.
type ConditionError struct {
	IPv6  bool
	Words []string
	Err   error
}

// Error has the words and what nft says.
func (e *ConditionError) Error() string {
	return fmt.Sprintf("conditions %q: %v", strings.Join(e.Words, " "), e.Err)
}

// Unwrap returns what nft says, as ErrInvalid, or exec.ErrNotFound.
func (e *ConditionError) Unwrap() error { return e.Err }

// AsUnsupported returns err, as an ErrUnsupported if it is what a kernel answers that
// lacks nf_tables, a family, a chain type or an expression.
func AsUnsupported(err error) error {
	for _, errno := range []unix.Errno{unix.ENOENT, unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT} {
		if errors.Is(err, errno) {
			return fmt.Errorf("nf_tables: %w: %w", ErrUnsupported, err)
		}
	}
	return err
}
