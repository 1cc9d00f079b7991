package cni

import (
	"errors"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// gcPercent has Go collect garbage for the first time at 16 MB. At 4 MB, as is its
// default, most calls of a plugin had one collection shortly before their end, which
// took an ADD up to a fifth of its time (make bench BENCH=attach, with and without
// GOGC=100).
const gcPercent = 400

// Standard returns the streams of the process, and prepares it for one call: it
// collects garbage late, unless GOGC says when.
func Standard() Streams {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	return Streams{Stdin: os.Stdin, Stdout: descriptor(unix.Stdout), Stderr: descriptor(unix.Stderr)}
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
