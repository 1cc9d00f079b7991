package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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
	// queueLen is how many queries may wait in a queue.
	queueLen = 4096
	// copyRange is how much of a packet comes here, in bytes: a query is shorter.
	copyRange     = 4096
	receiveSize   = copyRange + 1024 // with what is told of it
	receiveMemory = 8 << 20
	// roomSize is more than an answer over UDP has, in bytes.
	roomSize = 2048
)

// queue is an NFQUEUE.
type queue struct {
	number int
	fd     int // netlink
	out    int // a packet socket that receives nothing
	conf   Config

	in, answers *messages
	verdicts    []byte         // messages of netlink
	names       map[int]string // of interfaces
	named       time.Time      // when names were asked for first
	room        []byte         // for an answer
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
	q := &queue{number: number, fd: fd, out: -1, conf: c, in: newMessages(receiveSize), answers: newMessages(0), names: map[int]string{}, room: make([]byte, 0, roomSize)}
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

// serve decides on packets until ctx ends. It waits in the kernel, in a thread of its own:
// Go's poller costs more than an answer.
func (q *queue) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = q.request(failOpen) }) // whose acknowledgement ends the wait
	defer stop()
	for {
		n, err := q.in.receive(q.fd)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("queue for DNS queries: %w", err)
		}
		q.takeAll(n)
	}
}

// genHeader is the size of struct nfgenmsg.
const genHeader = 4

// arrived is a packet in the queue.
type arrived struct {
	id           []byte // of the queue's
	in           int    // interface
	mac, payload []byte
}

// decision is what becomes of a packet.
type decision struct {
	id      []byte // of the queue's; nil: it is no packet
	verdict uint32
}

// takeAll decides on the packets that came at once. A query whose answer cannot be sent is
// lost, and asked again: another server would say that there is no such name.
func (q *queue) takeAll(n int) {
	if n == 0 {
		return
	}
	if q.conf.Look != nil {
		q.conf.Look()
	}
	var all [atOnce]decision
	count := 0
	for i := range n {
		a, ok := read(q.in.received(i))
		if !ok {
			continue
		}
		all[i] = decision{a.id, nfAccept}
		switch {
		case isTCP(a.payload): // its rules come later
			if q.conf.Early != nil {
				q.conf.Early()
			}
		case a.mac != nil && q.answer(count, a):
			all[i].verdict = nfDrop
			count++
		}
	}
	for at := 0; at < count; {
		sent, err := q.answers.send(q.out, at, count)
		if at += sent; err != nil {
			at++
		}
	}
	q.decide(all[:n])
}

// read reads a message of the queue; false if it is about no packet.
func read(m []byte) (a arrived, ok bool) {
	if len(m) < unix.NLMSG_HDRLEN+genHeader || binary.NativeEndian.Uint16(m[4:]) != unix.NFNL_SUBSYS_QUEUE<<8|msgPacket {
		return a, false
	}
	size := int(binary.NativeEndian.Uint32(m))
	if size < unix.NLMSG_HDRLEN+genHeader || size > len(m) {
		return a, false
	}
	_ = nfnl.Each(m[unix.NLMSG_HDRLEN+genHeader:size], func(typ uint16, v []byte) error {
		switch {
		case typ == attrPacketHeader && len(v) >= 4:
			a.id = v[:4]
		case typ == attrInDev && len(v) == 4:
			a.in = int(binary.BigEndian.Uint32(v))
		case typ == attrHWAddr && len(v) >= 10 && binary.BigEndian.Uint16(v) == 6:
			a.mac = v[4:10]
		case typ == attrPayload:
			a.payload = v
		}
		return nil
	})
	return a, a.id != nil
}

// The verdicts.
const (
	nfDrop   = 0
	nfAccept = 1
)

// decide sends the verdicts. The queue hands packets over in the order of their IDs, and
// a verdict on several is on all up to an ID that have none yet. A packet that is gone,
// with its interface, needs none, and so no answer is waited for.
func (q *queue) decide(all []decision) {
	b := q.verdicts[:0]
	for i, d := range all {
		if d.id == nil || i+1 < len(all) && all[i+1].id != nil && all[i+1].verdict == d.verdict {
			continue
		}
		b = binary.NativeEndian.AppendUint32(b, unix.NLMSG_HDRLEN+genHeader+12)
		b = binary.NativeEndian.AppendUint16(b, unix.NFNL_SUBSYS_QUEUE<<8|msgVerdictBatch)
		b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST)
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, unix.AF_UNSPEC, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(q.number))
		b = binary.NativeEndian.AppendUint16(b, 12)
		b = binary.NativeEndian.AppendUint16(b, attrVerdictHeader)
		b = binary.BigEndian.AppendUint32(b, d.verdict)
		b = append(b, d.id...)
	}
	if q.verdicts = b; len(b) > 0 {
		sendToKernel(q.fd, b)
	}
}

// answer makes the answer to a query, as number i; false: it is for another server.
func (q *queue) answer(i int, a arrived) bool {
	d, ok := parse(a.payload)
	if !ok {
		return false
	}
	name, err := q.interfaceName(a.in)
	if err != nil {
		return false
	}
	answer := q.conf.Respond(Query{Bridge: name, From: d.from.Addr(), To: d.to, Message: d.data, Room: q.room[:0]})
	if answer == nil {
		return false
	}
	q.answers.set(i, build(q.answers.contents[i][:0], d, answer))
	to := unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Ifindex: int32(a.in), Protocol: etherType(d), Halen: uint8(len(a.mac))}
	copy(to.Addr[:], a.mac)
	q.answers.to(i, to)
	return true
}

// nameFor is how long an interface is taken to have the name that it had. A number is not
// given to another interface within seconds.
const nameFor = 100 * time.Millisecond

// interfaceName returns the name of an interface.
func (q *queue) interfaceName(index int) (name string, err error) {
	if now := time.Now(); now.Sub(q.named) > nameFor {
		clear(q.names)
		q.named = now
	}
	if name = q.names[index]; name == "" {
		if name, err = interfaceName(q.out, index); err == nil {
			q.names[index] = name
		}
	}
	return name, err
}

func etherType(d datagram) uint16 {
	typ := uint16(unix.ETH_P_IPV6)
	if d.from.Addr().Is4() {
		typ = unix.ETH_P_IP
	}
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], typ)
	return binary.NativeEndian.Uint16(b[:])
}
