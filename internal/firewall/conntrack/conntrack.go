package conntrack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
	"github.com/libnet-cni/libnet/internal/procfs"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// ErrUnsupported: the kernel tracks connections, but cannot delete one when asked
// (CONFIG_NF_CT_NETLINK).
var ErrUnsupported error = &sentinel.Error{Text: "conntrack netlink is not supported by this kernel"}

// Flow is connections to ports: their first packet was for one of them,
// whatever became of it. Beware of TCP with any address: connections of
// containers to these ports elsewhere are among them, and may break.
type Flow struct {
	Protocol uint8      // IPPROTO_TCP, _UDP or _SCTP
	HostIP   netip.Addr // zero: any; 0.0.0.0 and ::, any of the family
	First    uint16
	Last     uint16 // 0: First
}

// Led is connections to a port of a service that were led to a container. Of TCP only such as would
// lead a new connection there, as the client uses its port again: those that a reset has ended, for 10
// seconds, and of a container that is gone also those that it has not answered, or whose end it has
// not. Others may go on.
type Led struct {
	Protocol uint8
	To       netip.AddrPort // of the service; 0.0.0.0 and :: are any address
	By       netip.Addr     // the container
	// Gone: the container is not there. Without it connections of TCP are not deleted: they may live
	// again meanwhile. They are marked as ended, and end with the client's next one.
	Gone bool
}

// is says whether an entry in a state of TCP is among l.
func (l Led) is(orig, reply tuple, state uint8) bool {
	// A packet for the container's own address was led by no service.
	to := l.To.Addr() == orig.dst || l.To.Addr().IsUnspecified() && orig.dst != l.By
	if !to || l.Protocol != orig.proto || l.By != reply.src || l.To.Port() != orig.dstPort {
		return false
	}
	return l.Protocol != unix.IPPROTO_TCP || state == tcpClose || l.Gone && (state == tcpSYNSent || state == tcpLastACK)
}

// Filter is what to forget: what is in any of its flows, answered by one of its
// targets, or begun or answered by one of its addresses. The zero Filter is nothing.
type Filter struct {
	Flows   []Flow
	Targets []netip.Addr // of containers, however they were reached
	Addrs   []netip.Addr // of containers, in whatever direction and translated or not
	// To has the subnets of containers to whose own addresses connections were
	// begun. The whole table is listed for it.
	To []netip.Prefix
	// Led is for containers that a service leads to no more. The table is walked over for it.
	Led []Led
	by  map[netip.Addr][]Led // Led, while the table is walked over
}

const (
	// maxPasses is how many ports and addresses are deleted one by one. More
	// take longer than a dump where the table is full.
	maxPasses = 16
	// answerBound is how long the kernel may take where ctx does not say.
	answerBound = 10 * time.Second
	countFile   = "net/netfilter/nf_conntrack_count"
)

// Table is the connections that the kernel tracks in the network namespace of the
// calling thread. Many goroutines may use it at once. Its sockets stay open: to close
// one has its caller wait for the kernel to free what any socket of nf_tables deleted.
type Table struct {
	proc    *procfs.FS
	sockets nfnl.Pool
}

// New returns a Table that reads /proc/sys by proc; nil: by /proc itself.
func New(proc *procfs.FS) *Table { return &Table{proc: proc} }

// Close closes the sockets; t can be used again. A program that ends anyway need not
// call it.
func (t *Table) Close() error { return t.sockets.Close() }

// Flush deletes the entries that match, in every zone. There being none is
// success, and so is a kernel that tracks no connections. How many there were is
// not known: the kernel does not say. A ctx that ends is seen between requests.
func (t *Table) Flush(ctx context.Context, f Filter) error {
	if err := t.flush(ctx, f); err != nil {
		return fmt.Errorf("delete conntrack entries: %w", err)
	}
	return nil
}

func (t *Table) flush(ctx context.Context, f Filter) error {
	if err := errors.Join(ctx.Err(), f.check()); err != nil {
		return err
	}
	if len(f.Flows)+len(f.Targets)+len(f.Addrs)+len(f.To)+len(f.Led) == 0 {
		return nil
	}
	if n, err := t.entries(); n == 0 || err != nil {
		return err
	}
	return t.sockets.Once(ctx, func(c *nfnl.Conn) error { return f.flush(ctx, c) })
}

func (f Filter) flush(ctx context.Context, c *nfnl.Conn) error {
	if err := c.SetTimeout(bound(ctx)); err != nil {
		return fmt.Errorf("bound netlink answers: %w", err)
	}
	if ps, ok := f.passes(); ok {
		if err := deletePasses(c, ps); !errors.Is(err, unix.EINVAL) {
			return err
		}
		// Before 6.11 a part of an entry's addresses is refused.
	}
	return f.deleteListed(ctx, c)
}

func bound(ctx context.Context) time.Duration {
	if d, ok := ctx.Deadline(); ok {
		return max(time.Until(d), time.Millisecond)
	}
	return answerBound
}

// check refuses what the kernel would misread: it ignores the ports of other
// protocols.
func (f Filter) check() error {
	for _, w := range f.Flows {
		known := w.Protocol == unix.IPPROTO_TCP || w.Protocol == unix.IPPROTO_UDP || w.Protocol == unix.IPPROTO_SCTP
		if !known || w.First == 0 || w.last() < w.First {
			return fmt.Errorf("invalid ports %d-%d of protocol %d", w.First, w.Last, w.Protocol)
		}
	}
	for _, a := range slices.Concat(f.Targets, f.Addrs) {
		if !a.IsValid() || a.IsUnspecified() {
			return fmt.Errorf("invalid address %s", a)
		}
	}
	return nil
}

func (w Flow) last() uint16 {
	if w.Last == 0 {
		return w.First
	}
	return w.Last
}

// in reports whether w is about addresses of the family of a.
func (w Flow) in(a netip.Addr) bool {
	return !w.HostIP.IsValid() || w.HostIP.Unmap().Is4() == a.Is4()
}

// entries returns how many entries the namespace has, 0 if the kernel tracks
// no connections.
func (t *Table) entries() (int, error) {
	fd, err := t.proc.Open(countFile, unix.O_RDONLY)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("open /proc/sys/%s: %w", countFile, err)
	}
	defer func() { _ = unix.Close(fd) }()
	var buf [16]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return 0, fmt.Errorf("read /proc/sys/%s: %w", countFile, err)
	}
	return strconv.Atoi(string(bytes.TrimSpace(buf[:n])))
}
