package capture

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

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
	if count == 1 {
		q.answers.sendOne(q.out)
	}
	for at := 0; at < count && count > 1; {
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

// mostHeld is how many answered queries may wait for their verdict.
const mostHeld = 128

// decide sends the verdicts. The queue hands packets over in the order of their IDs, and
// a verdict on several is on all up to an ID that have none yet. A packet that is gone,
// with its interface, needs none, and so no answer is waited for.
//
// Nothing waits for the verdict on a query that was answered: to be dropped. It goes with a
// later one, or by release.
func (q *queue) decide(all []decision) {
	q.mu.Lock()
	defer q.mu.Unlock()
	runs, passes := q.runs[:0], false
	if q.held > 0 {
		runs = append(runs, decision{q.last[:], nfDrop})
	}
	for _, d := range all {
		switch n := len(runs); {
		case d.id == nil:
			continue
		case n > 0 && runs[n-1].verdict == d.verdict:
			runs[n-1].id = d.id
		default:
			runs = append(runs, d)
		}
		q.held++
		passes = passes || d.verdict == nfAccept
	}
	switch {
	case len(runs) == 0:
	case passes || q.held >= mostHeld:
		q.send(runs)
	default:
		copy(q.last[:], runs[0].id)
	}
}

// release sends the verdict on what is held.
func (q *queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held > 0 {
		q.send([]decision{{q.last[:], nfDrop}})
	}
}

// send sends verdicts, each on all packets behind the one before, up to its own.
func (q *queue) send(runs []decision) {
	b := q.verdicts[:0]
	for _, d := range runs {
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
	q.verdicts, q.held = b, 0
	sendToKernel(q.fd, b)
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

// forgetNames forgets the names of interfaces that were asked for too long ago.
func (q *queue) forgetNames(now time.Time) {
	if now.Sub(q.named) > nameFor {
		clear(q.names)
		q.named = now
	}
}

// interfaceName returns the name of an interface.
func (q *queue) interfaceName(index int) (name string, err error) {
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
