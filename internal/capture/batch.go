package capture

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// google/nftables writes the expressions. Its connection cannot make a table that
// belongs to a socket, so the messages are ours.

// tableOwner is NFT_TABLE_F_OWNER (linux/netfilter/nf_tables.h).
const tableOwner = 2

// keyType is how nft prints a key.
type keyType uint32

// The types of nft (include/datatype.h).
const (
	ipv4Address keyType = 7
	ipv6Address keyType = 8
	inetProto   keyType = 12
)

// set is a set of our table.
type set struct {
	name              string
	key               keyType
	size              uint32 // of a key, in bytes
	interval, dynamic bool
	timeout           time.Duration // 0: none
	most              uint32        // elements; 0: no limit
}

type element struct {
	key         []byte
	intervalEnd bool
}

// batch is a transaction.
type batch struct {
	messages []nfnl.Message
	err      error // of an expression that cannot be written
}

func (b *batch) add(typ uint8, flags uint16, put func(*nfnl.Attrs)) {
	b.messages = append(b.messages, nfnl.Message{
		Subsystem: unix.NFNL_SUBSYS_NFTABLES, Type: typ, Flags: flags, Family: unix.NFPROTO_INET, Put: put,
	})
}

func (b *batch) addTable(unowned bool) {
	b.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_TABLE_NAME, TableName)
		if !unowned {
			a.Uint32(unix.NFTA_TABLE_FLAGS, tableOwner)
		}
	})
}

func (b *batch) deleteTable() {
	b.add(unix.NFT_MSG_DELTABLE, 0, func(a *nfnl.Attrs) { a.String(unix.NFTA_TABLE_NAME, TableName) })
}

// addChain adds a chain at a hook; without typ one that is jumped to.
func (b *batch) addChain(name, typ string, hook uint32, priority int32) {
	b.add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_CHAIN_TABLE, TableName)
		a.String(unix.NFTA_CHAIN_NAME, name)
		if typ == "" {
			return
		}
		a.Nest(unix.NFTA_CHAIN_HOOK, func(a *nfnl.Attrs) {
			a.Uint32(unix.NFTA_HOOK_HOOKNUM, hook)
			a.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(priority))
		})
		a.Uint32(unix.NFTA_CHAIN_POLICY, nfAccept)
		a.String(unix.NFTA_CHAIN_TYPE, typ)
	})
}

func (b *batch) addSet(s set) {
	b.add(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_SET_TABLE, TableName)
		a.String(unix.NFTA_SET_NAME, s.name)
		a.Uint32(unix.NFTA_SET_FLAGS, s.flags())
		a.Uint32(unix.NFTA_SET_KEY_TYPE, uint32(s.key))
		a.Uint32(unix.NFTA_SET_KEY_LEN, s.size)
		a.Uint32(unix.NFTA_SET_ID, uint32(len(b.messages))) // the kernel wants one
		if s.timeout > 0 {
			a.Bytes(unix.NFTA_SET_TIMEOUT, binary.BigEndian.AppendUint64(nil, uint64(s.timeout.Milliseconds())))
		}
		if s.most > 0 {
			a.Nest(unix.NFTA_SET_DESC, func(a *nfnl.Attrs) { a.Uint32(unix.NFTA_SET_DESC_SIZE, s.most) })
		}
	})
}

func (s set) flags() (flags uint32) {
	if s.interval {
		flags |= unix.NFT_SET_INTERVAL
	}
	if s.dynamic {
		flags |= unix.NFT_SET_EVAL
	}
	if s.timeout > 0 {
		flags |= unix.NFT_SET_TIMEOUT
	}
	return flags
}

func (b *batch) addElements(s set, all []element) {
	b.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, s, all)
}

func (b *batch) deleteElements(s set, all []element) {
	b.elements(unix.NFT_MSG_DELSETELEM, 0, s, all)
}

// perMessage bounds the elements of a message, whose nest has 64 KiB at most.
const perMessage = 500

func (b *batch) elements(typ uint8, flags uint16, s set, all []element) {
	for len(all) > 0 {
		some := all[:min(perMessage, len(all))]
		all = all[len(some):]
		b.add(typ, flags, func(a *nfnl.Attrs) {
			a.String(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
			a.String(unix.NFTA_SET_ELEM_LIST_SET, s.name)
			a.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(a *nfnl.Attrs) {
				for _, e := range some {
					a.Nest(unix.NFTA_LIST_ELEM, e.put)
				}
			})
		})
	}
}

func (e element) put(a *nfnl.Attrs) {
	a.Nest(unix.NFTA_SET_ELEM_KEY, func(a *nfnl.Attrs) { a.Bytes(unix.NFTA_DATA_VALUE, e.key) })
	if e.intervalEnd {
		a.Uint32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	}
}

func (b *batch) addRule(chain string, exprs ...[]expr.Any) {
	var encoded [][]byte
	for _, e := range joined(exprs...) {
		one, err := expr.Marshal(unix.NFPROTO_INET, e)
		b.err = errors.Join(b.err, err)
		encoded = append(encoded, one)
	}
	b.add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_RULE_TABLE, TableName)
		a.String(unix.NFTA_RULE_CHAIN, chain)
		a.Nest(unix.NFTA_RULE_EXPRESSIONS, func(a *nfnl.Attrs) {
			for _, one := range encoded {
				a.Nest(unix.NFTA_LIST_ELEM, func(a *nfnl.Attrs) { *a = append(*a, one...) })
			}
		})
	})
}

// conn is a socket to nf_tables.
type conn struct {
	fd  int
	buf []byte
}

func dialTables() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	// Without these a large transaction is refused, which is told.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, receiveMemory)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveMemory)
	return &conn{fd: fd, buf: make([]byte, 64<<10)}, nil
}

func (c *conn) close() error { return unix.Close(c.fd) }

// commit sends a transaction. The first error is why the kernel refused it as a whole.
func (c *conn) commit(b *batch) error {
	var out nfnl.Buffer
	edge := func(typ uint8) {
		out.Add(nfnl.Message{Type: typ, Edge: true, Resource: unix.NFNL_SUBSYS_NFTABLES})
	}
	edge(unix.NFNL_MSG_BATCH_BEGIN)
	for _, m := range b.messages {
		out.Add(m)
	}
	edge(unix.NFNL_MSG_BATCH_END)
	if err := unix.Sendto(c.fd, out.Bytes(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	var first error
	for { // the answers are there once it is sent
		n, _, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return first
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if errno := answered(c.buf[:max(n, 0)]); errno != 0 && first == nil {
			first = errno
		}
	}
}
