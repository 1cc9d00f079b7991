package transaction

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// Message returns a message of nf_tables.
func Message(typ uint8, flags uint16, family uint8, put func(*nfnl.Attrs)) nfnl.Message {
	return nfnl.Message{Subsystem: unix.NFNL_SUBSYS_NFTABLES, Type: typ, Flags: flags, Family: family, Put: put}
}

// MaxAsked is how many requests Ask sends at once: their answers have to fit into the
// socket's receive buffer.
const MaxAsked = 64

// Ask sends requests for single objects together and calls fn with the answer to each, in
// order: its attributes, nil if it is not there (ENOENT).
func Ask(nl *nfnl.Conn, requests []nfnl.Message, fn func(i int, attrs []byte) error) error {
	for start := 0; start < len(requests); start += MaxAsked {
		part := requests[start:min(start+MaxAsked, len(requests))]
		if err := askPart(nl, part, func(i int, attrs []byte) error { return fn(start+i, attrs) }); err != nil {
			return err
		}
	}
	return nil
}

func askPart(nl *nfnl.Conn, requests []nfnl.Message, fn func(i int, attrs []byte) error) error {
	buf := nl.Buffer()
	for _, r := range requests {
		buf.Add(r)
	}
	if err := nl.Send(buf); err != nil {
		return err
	}
	answered := 0
	return nl.Receive(func(a nfnl.Answer, isErr bool, errno unix.Errno) (bool, error) {
		if isErr && errno != unix.ENOENT && errno != 0 {
			return true, errno
		}
		if isErr && errno == 0 {
			return false, nil
		}
		answered++
		err := fn(int(a.Seq)-1, a.Attrs)
		return answered == len(requests), err
	})
}

// Generation returns the number of the last transaction, by whatever program. It is
// firewall.ErrUnsupported when there is no nf_tables.
func Generation(nl *nfnl.Conn) (n uint32, err error) {
	err = Ask(nl, []nfnl.Message{Message(unix.NFT_MSG_GETGEN, 0, unix.AF_UNSPEC, nil)}, func(_ int, attrs []byte) error {
		n = nfnl.Uint32(nfnl.Find(attrs, unix.NFTA_GEN_ID))
		return nil
	})
	if errors.Is(err, unix.EINVAL) { // nfnetlink does not know this subsystem
		return 0, fmt.Errorf("nf_tables: %w", firewall.ErrUnsupported)
	}
	return n, err
}

// GetTable asks for a table.
func GetTable(table string, family uint8) nfnl.Message {
	return Message(unix.NFT_MSG_GETTABLE, 0, family, func(a *nfnl.Attrs) { a.String(unix.NFTA_TABLE_NAME, table) })
}

// GetChain asks for a chain.
func GetChain(table string, family uint8, name string) nfnl.Message {
	return Message(unix.NFT_MSG_GETCHAIN, 0, family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_CHAIN_TABLE, table)
		a.String(unix.NFTA_CHAIN_NAME, name)
	})
}

// GetElem asks for an element by its key.
func GetElem(table string, e ruleset.Elem) nfnl.Message {
	return Message(unix.NFT_MSG_GETSETELEM, 0, e.Set.Family, func(a *nfnl.Attrs) { encodeElems(a, table, false, e) })
}
