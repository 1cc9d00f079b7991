package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// Of linux/netfilter/nfnetlink_queue.h.
const (
	msgPacket  = 0
	msgVerdict = 1
	msgConfig  = 2

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
	receiveMemory = 8 << 20
)

// queue is an NFQUEUE.
type queue struct {
	number  int
	file    *os.File // netlink
	fd      int      // of file
	out     int      // a packet socket that receives nothing
	respond func(Query) []byte
	early   func()
	buf     []byte
	packet  []byte // for answers
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
	q := &queue{number: number, fd: fd, out: -1, respond: c.Respond, early: c.Early, buf: make([]byte, 64<<10)}
	err = q.configure(fd)
	if err == nil {
		q.out, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	q.file = os.NewFile(uintptr(fd), "nfqueue")
	return q, nil
}

func (q *queue) close() error { return errors.Join(q.file.Close(), unix.Close(q.out)) }

// configure binds the queue.
func (q *queue) configure(fd int) error {
	// Without these a burst is lost sooner, and no more.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveMemory)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_NO_ENOBUFS, 1)
	for _, put := range []func(*nfnl.Attrs){
		func(a *nfnl.Attrs) { a.Bytes(cfgCommand, []byte{commandBind, 0, 0, 0}) },
		func(a *nfnl.Attrs) { a.Bytes(cfgParams, append(be32(copyRange), copyPacket)) },
		func(a *nfnl.Attrs) { a.Uint32(cfgMaxLen, queueLen) },
		func(a *nfnl.Attrs) { a.Uint32(cfgFlags, flagFailOpen); a.Uint32(cfgMask, flagFailOpen) },
	} {
		var b nfnl.Buffer
		b.Add(nfnl.Message{Subsystem: unix.NFNL_SUBSYS_QUEUE, Type: msgConfig, Flags: unix.NLM_F_ACK, Resource: uint16(q.number), Put: put})
		if err := unix.Sendto(fd, b.Bytes(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		n, err := unix.Read(fd, q.buf)
		if err != nil {
			return err
		}
		if errno := answered(q.buf[:n]); errno != 0 {
			return errno
		}
	}
	return nil
}

func be32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// answered returns what an acknowledgement says.
func answered(b []byte) unix.Errno {
	if len(b) < unix.NLMSG_HDRLEN+4 || binary.NativeEndian.Uint16(b[4:]) != unix.NLMSG_ERROR {
		return unix.EBADMSG
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(b[unix.NLMSG_HDRLEN:])))
}

// serve decides on packets until ctx ends.
func (q *queue) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = q.file.SetReadDeadline(past) })
	defer stop()
	for {
		n, err := q.file.Read(q.buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("queue for DNS queries: %w", err)
		}
		for b := q.buf[:max(n, 0)]; len(b) >= unix.NLMSG_HDRLEN+genHeader; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.NLMSG_HDRLEN+genHeader || size > len(b) {
				break
			}
			if binary.NativeEndian.Uint16(b[4:]) == unix.NFNL_SUBSYS_QUEUE<<8|msgPacket {
				q.take(b[unix.NLMSG_HDRLEN+genHeader : size])
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

// genHeader is the size of struct nfgenmsg.
const genHeader = 4

// take decides on a packet.
func (q *queue) take(attrs []byte) {
	var id []byte
	var in int
	var mac, payload []byte
	_ = nfnl.Each(attrs, func(typ uint16, v []byte) error {
		switch {
		case typ == attrPacketHeader && len(v) >= 4:
			id = v[:4]
		case typ == attrInDev && len(v) == 4:
			in = int(binary.BigEndian.Uint32(v))
		case typ == attrHWAddr && len(v) >= 10 && binary.BigEndian.Uint16(v) == 6:
			mac = v[4:10]
		case typ == attrPayload:
			payload = v
		}
		return nil
	})
	if id == nil {
		return
	}
	verdict := uint32(nfAccept)
	switch {
	case isTCP(payload): // its rules come later
		if q.early != nil {
			q.early()
		}
	case mac != nil && q.answer(in, mac, payload):
		verdict = nfDrop
	}
	q.decide(id, verdict)
}

// The verdicts.
const (
	nfDrop   = 0
	nfAccept = 1
)

// decide sends a verdict.
func (q *queue) decide(id []byte, verdict uint32) {
	var m [unix.NLMSG_HDRLEN + genHeader + 12]byte
	binary.NativeEndian.PutUint32(m[0:], uint32(len(m)))
	binary.NativeEndian.PutUint16(m[4:], unix.NFNL_SUBSYS_QUEUE<<8|msgVerdict)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST)
	binary.BigEndian.PutUint16(m[unix.NLMSG_HDRLEN+2:], uint16(q.number))
	a := m[unix.NLMSG_HDRLEN+genHeader:]
	binary.NativeEndian.PutUint16(a, 12)
	binary.NativeEndian.PutUint16(a[2:], attrVerdictHeader)
	binary.BigEndian.PutUint32(a[4:], verdict)
	copy(a[8:], id)
	// A packet that is gone, with its interface, needs no verdict.
	_ = unix.Sendto(q.fd, m[:], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// answer answers a query; false: it is for another server.
func (q *queue) answer(in int, mac, payload []byte) bool {
	d, ok := parse(payload)
	if !ok {
		return false
	}
	name, err := interfaceName(q.out, in)
	if err != nil {
		return false
	}
	answer := q.respond(Query{Bridge: name, From: d.from.Addr(), To: d.to, Message: d.data})
	if answer == nil {
		return false
	}
	q.packet = build(q.packet[:0], d, answer)
	to := &unix.SockaddrLinklayer{Ifindex: in, Protocol: etherType(d), Halen: uint8(len(mac))}
	copy(to.Addr[:], mac)
	return unix.Sendto(q.out, q.packet, 0, to) == nil
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
