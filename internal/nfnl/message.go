package nfnl

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Buffer is netlink messages, one after the other, to be sent in one system call.
type Buffer struct {
	data  []byte
	count int
	last  int // where the last message starts
}

const (
	msgHeader = unix.NLMSG_HDRLEN // of struct nlmsghdr
	genHeader = 4                 // of struct nfgenmsg
)

// Add appends a message of a subsystem to the buffer.
func (b *Buffer) Add(m Message) {
	typ := uint16(m.Subsystem)<<8 | uint16(m.Type)
	if m.Edge {
		typ = uint16(m.Type)
	}
	if b.data == nil {
		b.data = make([]byte, 0, 4096) // most never need more
	}
	b.last = len(b.data)
	b.count++
	b.data = append(b.data, make([]byte, msgHeader)...)
	b.data = append(b.data, m.Family, unix.NFNETLINK_V0)
	b.data = binary.BigEndian.AppendUint16(b.data, m.Resource)
	if m.Put != nil {
		m.Put((*Attrs)(&b.data))
	}
	h := b.data[b.last:]
	binary.NativeEndian.PutUint32(h, uint32(len(h)))
	binary.NativeEndian.PutUint16(h[4:], typ)
	binary.NativeEndian.PutUint16(h[6:], unix.NLM_F_REQUEST|m.Flags)
	binary.NativeEndian.PutUint32(h[8:], uint32(b.count)) // the sequence number
}

// AckLast has the kernel answer the last message of the buffer.
func (b *Buffer) AckLast() {
	h := b.data[b.last+6:]
	binary.NativeEndian.PutUint16(h, binary.NativeEndian.Uint16(h)|unix.NLM_F_ACK)
}

// Bytes returns the messages as they are sent; they stay the buffer's.
func (b *Buffer) Bytes() []byte { return b.data }

// Len returns how many messages are in the buffer.
func (b *Buffer) Len() int { return b.count }

// Message is one message to be sent.
type Message struct {
	Subsystem uint8 // NFNL_SUBSYS_*
	Type      uint8
	Edge      bool   // NFNL_MSG_BATCH_BEGIN or _END, which are of no subsystem
	Flags     uint16 // NLM_F_*; NLM_F_REQUEST is set anyway
	Family    uint8  // NFPROTO_*
	Resource  uint16
	Put       func(*Attrs) // nil: no attributes
}

// Answer is a message the kernel sent.
type Answer struct {
	Seq   uint32
	Type  uint8
	Flags uint16
	Attrs []byte
}
