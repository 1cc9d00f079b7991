package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// What iptables exits with if a rule is not there, if it does not know the words,
// and if the kernel has not what it needs.
const (
	exitNotThere      = 1
	exitNotUnderstood = 2
	exitNoKernel      = 3
)

// save returns the rules of a family as they are.
func save(ctx context.Context, f family) (snapshot, error) {
	text, err := run(ctx, f.command()+"-save", "")
	if err != nil {
		return snapshot{}, err
	}
	return parse(f, text)
}

// restore makes the changes of text: all those of a table, or none.
func restore(ctx context.Context, f family, text string) error {
	_, err := run(ctx, f.command()+"-restore", text, "--noflush", "--wait")
	return err
}

// run starts a tool in the network namespace of the calling thread.
func run(ctx context.Context, tool, input string, args ...string) (string, error) {
	path, err := exec.LookPath(tool)
	if err != nil {
		return "", fmt.Errorf("%w: %w", firewall.ErrUnsupported, err)
	}
	var out, complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &complaints
	err = cmd.Run()
	if ctx.Err() != nil {
		return "", fmt.Errorf("%s: %w", tool, ctx.Err())
	}
	if err == nil {
		return out.String(), nil
	}
	err = fmt.Errorf("%s: %w: %s", tool, err, strings.Join(strings.Fields(complaints.String()), " "))
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return "", err
	}
	switch exit.ExitCode() {
	case exitNoKernel:
		err = fmt.Errorf("%w: %w", firewall.ErrUnsupported, err)
	case exitNotUnderstood:
		err = fmt.Errorf("%w: %w", firewall.ErrInvalid, err)
	}
	return "", err
}

// locked runs fn while nobody else who uses the same lock file does: between
// looking and changing, iptables has no lock. It waits until ctx ends.
func locked(ctx context.Context, path string, fn func() error) error {
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	got := make(chan error, 1)
	go func() { got <- flock(int(file.Fd())) }()
	select {
	case err = <-got:
	case <-ctx.Done():
		go func() { // nothing can wake it: it lets go of what it gets
			_, _ = <-got, file.Close()
		}()
		return fmt.Errorf("lock %s: %w", path, ctx.Err())
	}
	if err == nil {
		err = fn()
	} else {
		err = fmt.Errorf("lock %s: %w", path, err)
	}
	return errors.Join(err, file.Close())
}

func flock(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
