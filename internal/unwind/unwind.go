// Package unwind takes back what was done when a later step fails.
package unwind

import "errors"

// Stack holds how to take back what was done, step by step.
type Stack []func() error

// Push adds how to take back a step that was done.
func (u *Stack) Push(step func() error) { *u = append(*u, step) }

// Rollback takes everything back, last step first, if *err is set, and joins
// to it what could not be taken back. It is meant to be deferred.
func (u *Stack) Rollback(err *error) {
	if *err == nil {
		return
	}
	errs := []error{*err}
	for i := len(*u) - 1; i >= 0; i-- {
		errs = append(errs, (*u)[i]())
	}
	if joined := errors.Join(errs[1:]...); joined != nil {
		*err = errors.Join(errs...)
	}
}
