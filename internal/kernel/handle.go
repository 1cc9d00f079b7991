package kernel

import (
	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/procfs"
	"github.com/libnet-cni/libnet/internal/tunnel"
)

// Handle is the Host, its Links and, by a method, its Tunnels by one rtnetlink, in the network
// namespace of the thread that called Open. Sysctls and event sockets are those
// of the calling thread, so its methods must be called from threads in that same
// namespace: every thread of a process that leaves its threads alone is, any
// other one Enter brings there. Many goroutines may use it at once.
type Handle struct {
	// Values: of embedded pointers the linker keeps each method twice.
	host.Host
	link.Links
	tunnel.Basis
	// Proc is how files under /proc/sys are opened.
	Proc *procfs.FS

	conn *netlink.Conn
}

// Open opens rtnetlink in the calling thread's network namespace.
func Open() (*Handle, error) {
	c, err := netlink.Open()
	if err != nil {
		return nil, err
	}
	proc := procfs.New()
	h := &Handle{Host: *host.New(c, proc), Basis: *tunnel.BasisOf(c), Proc: proc, conn: c}
	h.Links = *link.New(c, &h.Host, proc)
	return h, nil
}

// Tunnels makes tunnels, and mends and removes them. What makes them is linked by the
// programs only that call it.
func (h *Handle) Tunnels() *tunnel.Tunnels { return tunnel.New(h.conn) }

// EndsSoon says that the process ends after its work with the Handle; see netlink.Conn.
func (h *Handle) EndsSoon() { h.conn.EndsSoon() }

// Close closes what is open. The Handle must not be used afterwards.
func (h *Handle) Close() {
	h.conn.Close()
	h.Proc.Close()
}

// Enter brings the calling goroutine's thread into the Handle's namespace and
// keeps the goroutine on it, until leave is called, once. A thread that is there
// already stays as it is. Goroutines that are started meanwhile run elsewhere,
// processes in the namespace. A leave that fails keeps the goroutine on the
// thread, which ends with it.
func (h *Handle) Enter() (leave func() error, err error) { return h.conn.Enter() }
