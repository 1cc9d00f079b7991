package iptables

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/tool"
	"github.com/libnet-cni/libnet/internal/flock"
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
func run(ctx context.Context, name, input string, args ...string) (string, error) {
	out, err := tool.Run(ctx, name, input, args...)
	var failed *tool.Error
	switch {
	case errors.Is(err, tool.ErrNotInstalled):
		err = fmt.Errorf("%w: %w", firewall.ErrUnsupported, err)
	case errors.As(err, &failed) && failed.Code == exitNoKernel:
		err = fmt.Errorf("%w: %w", firewall.ErrUnsupported, err)
	case errors.As(err, &failed) && failed.Code == exitNotUnderstood:
		err = fmt.Errorf("%w: %w", firewall.ErrInvalid, err)
	}
	return out, err
}

// locked runs fn while nobody else who uses the same lock file does: between
// looking and changing, iptables has no lock. It waits until ctx ends.
func locked(ctx context.Context, path string, fn func() error) error {
	fd, err := openLock(path)
	if err != nil {
		return err
	}
	err = flock.Lock(ctx, fd, unix.LOCK_EX, 0, path)
	if errors.Is(err, flock.ErrLocked) {
		return err // the descriptor goes with the wait
	}
	if err == nil {
		err = fn()
	} else {
		err = fmt.Errorf("lock %s: %w", path, err)
	}
	return errors.Join(err, unix.Close(fd))
}
