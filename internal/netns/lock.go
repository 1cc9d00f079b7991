package netns

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/flock"
)

// routesBound is how long an attachment waits for the routes of its namespace.
const routesBound = 10 * time.Second

// LockRoutes keeps others of this program from the routes of the namespace
// until free is called. The lock is on the namespace itself (flock(2) of its
// nsfs file): one for all paths that lead to it, no file to make or to leave
// behind, and gone with the process.
func (n *Namespace) LockRoutes(ctx context.Context) (free func(), err error) {
	free = func() { _ = unix.Flock(n.fd, unix.LOCK_UN) }
	if err := unix.Flock(n.fd, unix.LOCK_EX|unix.LOCK_NB); err == nil {
		return free, nil
	}
	// A wait that is given up takes the descriptor along.
	fd, err := unix.FcntlInt(uintptr(n.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("lock routes of %q: %w", n.path, err)
	}
	if err := flock.Lock(ctx, fd, unix.LOCK_EX, routesBound, n.path); errors.Is(err, flock.ErrLocked) {
		return nil, fmt.Errorf("routes of %q: %w", n.path, err)
	} else if err != nil {
		return nil, errors.Join(fmt.Errorf("lock routes of %q: %w", n.path, err), unix.Close(fd))
	}
	_ = unix.Close(fd) // the lock is the open file's, which n has
	return free, nil
}
