package cni

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Standard returns the streams of the process.
func Standard() Streams {
	return Streams{Stdin: os.Stdin, Stdout: descriptor(unix.Stdout), Stderr: descriptor(unix.Stderr), Close: closeStandard}
}

// closeStandard ends the streams of the process before it ends: a child that it leaves
// behind (see engine.EndsSoon) shares them, and the runtime reads until they end.
func closeStandard() {
	for _, fd := range []int{unix.Stdin, unix.Stdout, unix.Stderr} {
		_ = unix.Close(fd)
	}
}

// descriptor is an open file to be written to. An os.File has a broken pipe
// kill the process (os/signal, SIGPIPE) before ADD can take back what it made;
// to ignore the signal by os/signal takes a goroutine and a thread.
type descriptor int

// Write writes all of p, waiting for room where the file does not block.
func (d descriptor) Write(p []byte) (n int, err error) {
	for n < len(p) {
		m, err := unix.Write(int(d), p[n:])
		n += max(m, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(d), Events: unix.POLLOUT}}, -1); err != nil && !errors.Is(err, unix.EINTR) {
				return n, &os.PathError{Op: "wait for room in", Path: d.name(), Err: err}
			}
		case err != nil && !errors.Is(err, unix.EINTR):
			return n, &os.PathError{Op: "write to", Path: d.name(), Err: err}
		}
	}
	return n, nil
}

func (d descriptor) name() string {
	if int(d) == unix.Stdout {
		return "stdout"
	}
	return "stderr"
}
