package netlink

import (
	"fmt"

	"github.com/libnet-cni/libnet/internal/sentinel"
)

// Advised is a difference that a restart of the container does not mend.
type Advised struct {
	Err    error
	Advice string // what to do, in words or as a command
}

// Error says what differs, and the advice.
func (a Advised) Error() string { return a.Err.Error() + " (" + a.Advice + ")" }

// Unwrap returns what differs.
func (a Advised) Unwrap() error { return a.Err }

// Advise adds a difference with what to do about it.
func (d *Diff) Advise(advice, format string, args ...any) {
	*d = append(*d, difference{Advised{fmt.Errorf(format, args...), advice}})
}

// Diff collects differences, and what could not be looked at.
type Diff []error

// Add adds a difference.
func (d *Diff) Add(format string, args ...any) {
	*d = append(*d, difference{fmt.Errorf(format, args...)})
}

// Failed adds an error of looking at something. That it is missing is a
// difference.
func (d *Diff) Failed(at string, err error) { *d = append(*d, fmt.Errorf("%s: %w", at, err)) }

// difference is an error that is ErrDifferent without saying so.
type difference struct{ error }

func (d difference) Is(target error) bool { return target == ErrDifferent }

func (d difference) Unwrap() error { return d.error }

// VerifyMTU adds to out that the MTU of d is not want; 0: any will do.
func VerifyMTU(at string, d *Device, want int, out *Diff) {
	if want > 0 && d.MTU != want {
		out.Add("%s: MTU is %d, want %d", at, d.MTU, want)
	}
}

// ErrDifferent: the kernel has something else than was asked for. An error
// of a Verify that wraps neither it nor ErrNotFound nor ErrNotBridge says that
// it could not look.
var ErrDifferent error = &sentinel.Error{Text: "different"}
