package netlink

import (
	"errors"
	"fmt"
)

// Undo is a stack of steps that put back what was changed.
type Undo []func() error

// Push adds the step that takes back what was just done.
func (u *Undo) Push(fn func() error) { *u = append(*u, fn) }

// Run runs the steps in reverse; what is gone already is no error.
func (u Undo) Run() error {
	var errs []error
	for i := len(u) - 1; i >= 0; i-- {
		if err := u[i](); err != nil && !errors.Is(err, ErrNotFound) {
			errs = append(errs, fmt.Errorf("undo: %w", err))
		}
	}
	return errors.Join(errs...)
}
