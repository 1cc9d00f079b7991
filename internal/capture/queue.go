package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// Of linux/netfilter/nfnetlink_queue.h.
const (
	msgPacket       = 0
	msgConfig       = 2
	msgVerdictBatch = 3

	cfgCommand  = 1
	cfgParams   = 2
	cfgMaxLen   = 3
	cfgMask     = 4
	cfgFlags    = 5
	commandBind = 1
	copyPacket  = 2
	// flagFailOpen has a packet that the queue is too full for pass.
	flagFailOpen = 1

	attrPacketHeader  = 1
	attrVerdictHeader = 2
	attrInDev         = 5
	attrHWAddr        = 9
	attrPayload       = 10
)

const (
	// The queues have numbers from here on; where one is taken, later ones.
	firstQueue = 53000
	queueTries = 16
	// mostQueues is how many there are at most: where there are more CPUs, some share one.
	mostQueues = 64
	// queueLen is how many queries may wait in a queue.
	queueLen = 4096
	// copyRange is how much of a packet comes here, in bytes: a query is shorter.
	copyRange     = 4096
	receiveSize   = copyRange + 1024 // with what is told of it
	receiveMemory = 8 << 20
	// roomSize is more than an answer over UDP has, in bytes.
	roomSize = 2048
	// turnAfter is how long a thread that has queries goes without Go's scheduler.
	turnAfter = 8 * time.Millisecond
)

// queue is an NFQUEUE.
type queue struct {
	number int
	cpu    int // from which alone queries come; none: from several
	fd     int // netlink
	out    int // a packet socket that receives nothing
	conf   Config

	in, answers *messages
	names       map[int]string // of interfaces
	named       time.Time      // when names were asked for first
	turned      time.Time      // when the scheduler ran last
	room        []byte         // for an answer

	mu       sync.Mutex // of what follows
	verdicts []byte     // messages of netlink
	runs     []decision // room for them
	held     int        // packets whose verdict was not sent
	last     [4]byte    // of these
}

// openQueues opens queues with numbers that follow one another.
func openQueues(count int, c Config) (all []*queue, err error) {
	for try := range queueTries {
		all, err = nil, nil
		for i := range count {
			var q *queue
			if q, err = openQueue(firstQueue+try*count+i, c); err != nil {
				break
			}
			all = append(all, q)
		}
		if err == nil {
			return all, nil
		}
		for _, q := range all {
			_ = q.close()
		}
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EPERM) { // of another program
			break
		}
	}
	return nil, fmt.Errorf("queue for DNS queries: %w", err)
}

func openQueue(number int, c Config) (*queue, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	q := &queue{number: number, cpu: none, fd: fd, out: -1, conf: c, in: newMessages(receiveSize), answers: newMessages(0), names: map[int]string{}, room: make([]byte, 0, roomSize), runs: make([]decision, 0, atOnce+1)}
	err = q.configure(fd)
	if err == nil {
		q.out, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	}
	_ = unix.SetsockoptInt(q.out, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, receiveMemory)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return q, nil
}

func (q *queue) close() error { return errors.Join(unix.Close(q.fd), unix.Close(q.out)) }

// configure binds the queue.
func (q *queue) configure(fd int) error {
	// Without these a burst is lost sooner, and no more.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveMemory)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_NO_ENOBUFS, 1)
	for _, put := range []func(*nfnl.Attrs){
		func(a *nfnl.Attrs) { a.Bytes(cfgCommand, []byte{commandBind, 0, 0, 0}) },
		func(a *nfnl.Attrs) { a.Bytes(cfgParams, append(be32(copyRange), copyPacket)) },
		func(a *nfnl.Attrs) { a.Uint32(cfgMaxLen, queueLen) },
		failOpen,
	} {
		if err := q.request(put); err != nil {
			return err
		}
		n, err := unix.Read(fd, q.in.contents[0])
		if err != nil {
			return err
		}
		if errno := answered(q.in.contents[0][:n]); errno != 0 {
			return errno
		}
	}
	return nil
}

func failOpen(a *nfnl.Attrs) { a.Uint32(cfgFlags, flagFailOpen); a.Uint32(cfgMask, flagFailOpen) }

// request sends what the kernel acknowledges.
func (q *queue) request(put func(*nfnl.Attrs)) error {
	var b nfnl.Buffer
	b.Add(nfnl.Message{Subsystem: unix.NFNL_SUBSYS_QUEUE, Type: msgConfig, Flags: unix.NLM_F_ACK, Resource: uint16(q.number), Put: put})
	return unix.Sendto(q.fd, b.Bytes(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

func be32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// answered returns what an acknowledgement says.
func answered(b []byte) unix.Errno {
	if len(b) < unix.NLMSG_HDRLEN+4 || binary.NativeEndian.Uint16(b[4:]) != unix.NLMSG_ERROR {
		return unix.EBADMSG
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(b[unix.NLMSG_HDRLEN:])))
}

// serve decides on packets until ctx ends. It waits in the kernel, in a thread of its own,
// which ends with it: Go's poller costs more than an answer.
func (q *queue) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = q.request(failOpen) }) // whose acknowledgement ends the wait
	defer stop()
	runtime.LockOSThread() // never unlocked
	stay(q.cpu)
	look := q.conf.Look
	if q.conf.Looker != nil {
		var done func()
		look, done = q.conf.Looker()
		defer done()
	}
	p := newPace()
	for {
		take := q.in.receive
		if p.single() {
			take = q.in.receiveOne
		}
		n, err := take(q.fd)
		p.came(n)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("queue for DNS queries: %w", err)
		}
		if n == 0 {
			continue
		}
		if look != nil {
			look()
		}
		now := time.Now()
		q.forgetNames(now)
		q.takeAll(n)
		q.turn(now)
	}
}

// turn lets Go's scheduler run before turnAfter is over, though this thread has no need: a
// goroutine that has not been scheduled for 10 ms loses its place in each system call to
// Go's monitor, which then wakes every 20 µs instead of every 10 ms. That took a tenth and more
// of the CPU time of an agent that is asked all the time.
func (q *queue) turn(now time.Time) {
	if now.Sub(q.turned) > turnAfter {
		q.turned = now
		runtime.Gosched()
	}
}
