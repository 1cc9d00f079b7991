// Package tool starts the programs that change rules for packages that need what
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
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/plain"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// ErrTimeout says that a program did not end in time.
var ErrTimeout error = &sentinel.Error{Text: "did not end in time"}

// Bounds of a program: how long it may run, and how much of what it writes to
// stdout and to stderr is read, in bytes. The rules of a host with a hundred
// thousand published ports are some 30 MiB.
const (
	Timeout   = 10 * time.Second
	maxOutput = 256 << 20
	maxErrors = 64 << 10
)

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

// NotInstalled says whether an error is of a program that is not in PATH.
func NotInstalled(err error) bool { return errors.Is(err, exec.ErrNotFound) }

// Find returns the path of a program; the error is exec.ErrNotFound.
func Find(name string) (path string, err error) { return exec.LookPath(name) }

// Run starts a program in the network namespace of the calling thread, gives it
// input and returns its output. The error is exec.ErrNotFound, an *Error,
// ErrTimeout after Timeout, or of ctx, with whose end the program ends; and one
// that says so if there is more output than anything has to say.
func Run(ctx context.Context, name, input string, args ...string) (string, error) {
	return run(ctx, Timeout, name, input, args...)
}

// outputWait is how long output may take that a program has written when it ends: on a machine that is
// very busy, to read it takes a second. A program that it has started may hold its output open.
const outputWait = 5 * time.Second

func run(outer context.Context, timeout time.Duration, name, input string, args ...string) (string, error) {
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
	ctx, cancel := context.WithTimeout(outer, timeout)
	defer cancel()
	out, complaints := limited{most: maxOutput}, limited{most: maxErrors}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &complaints
	cmd.WaitDelay = outputWait
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case outer.Err() != nil:
		return "", fmt.Errorf("%s: %w", name, outer.Err())
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s: %w (%s)", name, ErrTimeout, timeout)
	case errors.As(err, &exit):
		if complaints.Len() == 0 {
			complaints.Buffer = out.Buffer
		}
		return "", &Error{Name: name, Code: exit.ExitCode(), Says: complaints.cut(maxErrors)}
	case err != nil:
		return "", fmt.Errorf("%s: %w", name, err)
	case out.more:
		return "", fmt.Errorf("%s: wrote more than %d bytes", name, out.most)
	}
	return out.String(), nil
}

// limited keeps the first bytes of what a program writes. It takes the rest, so
// that the program comes to its end.
type limited struct {
	bytes.Buffer
	most int
	more bool
}

func (l *limited) Write(b []byte) (int, error) {
	keep := min(len(b), l.most-l.Len())
	l.more = l.more || keep < len(b)
	_, err := l.Buffer.Write(b[:keep])
	return len(b), err
}

func (l *limited) cut(most int) string { return string(l.Bytes()[:min(most, l.Len())]) }

// fileOf returns a file without a name that has the text. A program that reads
// it comes to its end even if the process that started it is killed.
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
