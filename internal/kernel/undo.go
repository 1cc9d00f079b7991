package kernel

import (
	"errors"
	"fmt"
)

// undo is a stack of steps that put back what was changed.
type undo []func() error

func (u *undo) push(fn func() error) { *u = append(*u, fn) }

// run runs the steps in reverse; what is gone already is no error.
func (u undo) run() error {
	var errs []error
	for i := len(u) - 1; i >= 0; i-- {
		if err := u[i](); err != nil && !errors.Is(err, ErrNotFound) {
			errs = append(errs, fmt.Errorf("undo: %w", err))
		}
	}
	return errors.Join(errs...)
}
