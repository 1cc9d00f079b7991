package iptables

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/fastpath"
	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/tool"
	"github.com/libnet-cni/libnet/internal/flock"
)

// Exit codes of iptables: a rule is not there; it does not know the words; the kernel
// lacks a module that it needs.
const (
	exitNotThere      = 1
	exitNotUnderstood = 2
	exitNoKernel      = 3
	exitBusy          = 4 // another one has the lock of iptables
)

// save returns the rules of a family as they are.
func save(ctx context.Context, f family) (snapshot, error) {
	text, err := run(ctx, f.command()+"-save", "")
	if err != nil {
		return snapshot{}, err
	}
	return parse(f, text)
}

// lockWait is how long iptables may wait for its lock, in seconds: a little less
// than a tool may run, so that mostly iptables itself says why.
const lockWait = "9"

// restore makes the changes of text: all those of a table, or none. Flows on the fast path are
// judged anew.
func restore(ctx context.Context, f family, text string) error {
	_, err := run(ctx, f.command()+"-restore", text, "--noflush", "--wait="+lockWait)
	return errors.Join(err, fastpath.Changed())
}

// run starts a tool in the network namespace of the calling thread. The error is
// flock.ErrLocked if it waits for another one for too long.
func run(ctx context.Context, name, input string, args ...string) (string, error) {
	out, err := tool.Run(ctx, name, input, args...)
	var failed *tool.Error
	switch {
	case errors.Is(err, tool.ErrTimeout), errors.As(err, &failed) && failed.Code == exitBusy:
		err = fmt.Errorf("%w: %w", flock.ErrLocked, err)
	case tool.NotInstalled(err):
		err = fmt.Errorf("%w: %w", firewall.ErrUnsupported, err)
	case errors.As(err, &failed) && failed.Code == exitNoKernel:
		err = fmt.Errorf("%w: %w", firewall.ErrUnsupported, err)
	case errors.As(err, &failed) && failed.Code == exitNotUnderstood:
		err = fmt.Errorf("%w: %w", firewall.ErrInvalid, err)
	}
	return out, err
}

// locked runs fn while no other user of the same lock file works: between
// looking and changing, iptables has no lock. It waits until ctx ends, and no
// longer than a tool may run: then the error is flock.ErrLocked.
func locked(ctx context.Context, path string, fn func() error) error {
	fd, err := openLock(path)
	if err != nil {
		return err
	}
	err = flock.Lock(ctx, fd, unix.LOCK_EX, tool.Timeout, path)
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
