package kernel

// Handle talks rtnetlink in the network namespace of the thread that called
// Open. Sysctls and event sockets are those of the calling thread, so its
// methods must be called from threads in that same namespace, which is every
// thread of a process that leaves its threads alone (see Netns.Within). Many
// goroutines may use it at once.
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
