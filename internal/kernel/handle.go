package kernel

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Handle talks rtnetlink in the network namespace of the thread that called
// Open. Sysctls and event sockets are those of the calling thread, so its
// methods must be called from threads in that same namespace: every thread of a
// process that leaves its threads alone is, any other one Enter brings there.
// Many goroutines may use it at once.
type Handle struct{ *conn }

// Open opens rtnetlink in the calling thread's network namespace.
func Open() (*Handle, error) {
	c, err := openConn()
	if err != nil {
		return nil, err
	}
	return &Handle{c}, nil
}

// Close closes the sockets. The Handle must not be used afterwards.
func (h *Handle) Close() { h.close() }

// Enter brings the calling goroutine's thread into the Handle's namespace and
// keeps the goroutine on it, until leave is called, once. A thread that is there
// already stays as it is. Goroutines that are started meanwhile run elsewhere,
// processes in the namespace. A leave that fails keeps the goroutine on the
// thread, which ends with it.
func (h *Handle) Enter() (leave func() error, err error) {
	n, err := h.namespace()
	if err != nil {
		return nil, err
	}
	defer func() { _ = n.Close() }()
	runtime.LockOSThread()
	here, err := n.IsCurrent()
	if err == nil && here {
		return func() error { runtime.UnlockOSThread(); return nil }, nil
	}
	defer runtime.UnlockOSThread()
	if err != nil {
		return nil, err
	}
	return n.enter()
}

// namespace opens the namespace of the Handle.
func (c *conn) namespace() (*Netns, error) { return namespaceOf(c.first) }

// namespaceOf opens the namespace of a socket.
func namespaceOf(socket int) (*Netns, error) {
	fd, err := unix.IoctlRetInt(socket, unix.SIOCGSKNS)
	if err != nil {
		return nil, fmt.Errorf("open the network namespace of a socket: %w", err)
	}
	return &Netns{fd: fd, path: "of a socket"}, nil
}
