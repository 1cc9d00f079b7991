// Package tool starts the programs that change rules for those who ask for what
// only they can do.
package tool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/plain"
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
	if err := plain.StartPoller(); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	in, err := fileOf(input)
	if err != nil {
		return "", err
	}
	defer func() { _ = in.Close() }()
	var out, complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &complaints
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

// fileOf returns a file without a name that has the text. A program that reads
// it comes to its end even if whoever started it does not.
func fileOf(text string) (*os.File, error) {
	fd, err := unix.MemfdCreate("input", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "input")
	if _, err := f.WriteAt([]byte(text), 0); err != nil { // leaves the place to read from at 0
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
