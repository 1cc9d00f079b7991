package engine

import "errors"

// undoStack holds how to take back what was done, step by step.
type undoStack []func() error

func (u *undoStack) push(step func() error) { *u = append(*u, step) }

// rollback takes everything back, last step first, if *err is set, and joins
// to it what could not be taken back. It is meant to be deferred.
func (u *undoStack) rollback(err *error) {
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
