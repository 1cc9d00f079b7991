package plain

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Spare opens descriptors that nothing uses: what is undone after a failure finds
// them free once close was called, even if the failure was that there are no
// more. It is an error, EMFILE or ENFILE, if there are not that many. To call
// close again does nothing.
func Spare(descriptors int) (closeAll func(), err error) {
	fds := make([]int, 0, descriptors)
	closeAll = sync.OnceFunc(func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	})
	for range descriptors {
		fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			closeAll()
			return nil, fmt.Errorf("keep %d descriptors for taking back what fails: %w", descriptors, err)
		}
		fds = append(fds, fd)
	}
	return closeAll, nil
}
