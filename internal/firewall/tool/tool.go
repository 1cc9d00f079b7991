// Package tool starts the programs that change rules for those who ask for what
// only they can do.
package tool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// ErrNotInstalled says that there is no such program in PATH.
var ErrNotInstalled = exec.ErrNotFound

// Error is a program that did not do what it was started for.
type Error struct {
	Name string
	Code int    // what it exited with
	Says string // on stderr, or on stdout if nothing was said there
}

// Error has what the program says in one line.
func (e *Error) Error() string {
	return fmt.Sprintf("%s: exit status %d: %s", e.Name, e.Code, strings.Join(strings.Fields(e.Says), " "))
}

// Find returns the path of a program; the error is ErrNotInstalled.
func Find(name string) (path string, err error) { return exec.LookPath(name) }

// Run starts a program in the network namespace of the calling thread, gives it
// input and returns its output. The error is ErrNotInstalled, an *Error, or of
// ctx, with whose end the program ends.
func Run(ctx context.Context, name, input string, args ...string) (string, error) {
	path, err := Find(name)
	if err != nil {
		return "", err
	}
	var out, complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &complaints
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s: %w", name, ctx.Err())
	case errors.As(err, &exit):
		if complaints.Len() == 0 {
			complaints = out
		}
		return "", &Error{Name: name, Code: exit.ExitCode(), Says: complaints.String()}
	case err != nil:
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return out.String(), nil
}
