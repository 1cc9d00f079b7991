package nftrace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/fastpath"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// Step is what one rule, or the policy of one chain, did to the packet.
type Step struct {
	Hook    string // "forward"; of a chain that was jumped to, that of the chain before
	Family  string // of the table: "inet"
	Table   string
	Chain   string
	Handle  uint64 // of the rule; 0: the policy of the chain
	Verdict string // "accept", "drop", "continue", "jump ports"
	Comment string // of the rule
	// In, Out are interfaces; empty: none yet. From, To are the packet's addresses as it
	// comes to the hook, zero in the steps after the first one of a chain at a hook.
	In, Out  string
	From, To netip.AddrPort
}

// Dropped says that the packet went no further.
func (s Step) Dropped() bool { return s.Verdict == "drop" }

// Tracer marks packets until Close.
type Tracer struct {
	table, events *nfnl.Conn
	chains        map[chainKey]string // the hook of a chain; "" of one without
	comments      map[chainKey]map[uint64]string
}

type chainKey struct{ family, table, chain string }

// Start marks the packets that match, in the calling thread's network namespace. It needs
// Linux 5.12. Only one Tracer can be there at once.
func Start(m Match) (t *Tracer, err error) {
	t = &Tracer{comments: map[chainKey]map[uint64]string{}}
	if t.table, err = nfnl.Open(); err != nil {
		return nil, err
	}
	if t.events, err = nfnl.Open(); err != nil {
		return nil, errors.Join(err, t.table.Close())
	}
	err = t.events.Join(groupNFTrace)
	if err == nil {
		t.chains, err = chainsOf(t.table)
	}
	if err == nil {
		err = mark(t.table, m)
	}
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// Close ends the marking.
func (t *Tracer) Close() error { return errors.Join(t.table.Close(), t.events.Close()) }

// Follow returns the way of the first packet that was marked. It waits for the first step
// as long as wait says, and for each next one for a short while, whatever other packets that
// match do meanwhile: the kernel tells no end. No packet goes the fast path meanwhile.
func (t *Tracer) Follow(wait time.Duration) (steps []Step, err error) {
	const more = 200 * time.Millisecond
	if err := fastpath.Slow(wait + more); err != nil {
		return nil, err
	}
	var first fingerprint
	ids := map[uint32]bool{}
	var last time.Time
	hook, ended := "", Step{}
	if err := t.events.SetTimeout(wait); err != nil {
		return nil, err
	}
	err = t.events.Receive(func(a nfnl.Answer, isErr bool, _ unix.Errno) (bool, error) {
		if isErr || a.Type != msgTrace {
			return false, nil
		}
		id := nfnl.Uint32(nfnl.Find(a.Attrs, traceID))
		mark := fingerprintOf(nfnl.Find(a.Attrs, traceNetwork), nfnl.Find(a.Attrs, traceTransport))
		if len(ids) == 0 {
			first = mark
			if err := t.events.SetTimeout(more); err != nil {
				return true, err
			}
		}
		// The kernel may have another ID for the packet from one hook to the next.
		if !ids[id] && mark != first {
			return time.Since(last) > more, nil
		}
		ids[id], last = true, time.Now()
		s := t.step(a.Attrs, &hook)
		switch {
		case s.Table == TableName:
		case s.Handle == 0 && s.Verdict == "continue": // the chain's policy comes next
			ended = s
		default:
			if ended.Chain == s.Chain { // which has the headers
				s.From, s.To, s.In, s.Out = ended.From, ended.To, ended.In, ended.Out
			}
			ended = Step{}
			steps = append(steps, s)
		}
		return len(steps) == mostPerOutput, nil
	})
	if errors.Is(err, unix.EAGAIN) { // no more came
		err = nil
	}
	return steps, err
}

// fingerprint is what tells a packet from others of its connection, and what translation of
// addresses leaves as it is.
type fingerprint struct {
	known, protocol byte
	ident           uint16 // of IPv4
	inside          uint64 // sequence of TCP with its flags, header of an echo
}

func fingerprintOf(network, transport []byte) (f fingerprint) {
	switch {
	case len(network) >= 20 && network[0]>>4 == 4:
		f = fingerprint{known: 4, protocol: network[9], ident: binary.BigEndian.Uint16(network[4:])}
	case len(network) >= 40 && network[0]>>4 == 6:
		f = fingerprint{known: 6, protocol: network[6]}
	default:
		return f
	}
	switch {
	case f.protocol == unix.IPPROTO_TCP && len(transport) >= 14:
		f.inside = uint64(binary.BigEndian.Uint32(transport[4:]))<<8 | uint64(transport[13])
	case (f.protocol == unix.IPPROTO_ICMP || f.protocol == unix.IPPROTO_ICMPV6) && len(transport) >= 8:
		f.inside = binary.BigEndian.Uint64(transport) &^ (0xffff << 32) // the checksum changes
	}
	return f
}

// Of enum nft_trace_attributes.
const (
	traceTable = iota + 1
	traceChain
	traceHandle
	traceType
	traceVerdict
	traceID
	_ // link layer header
	traceNetwork
	traceTransport
	traceIIF
	_ // type of it
	traceOIF
	_ // type of it
	_ // mark
	traceProto
	tracePolicy
)

func (t *Tracer) step(attrs []byte, hook *string) Step {
	s := Step{Table: nfnl.Text(attrs, traceTable), Chain: nfnl.Text(attrs, traceChain)}
	s.Handle = nfnl.Uint64(nfnl.Find(attrs, traceHandle))
	var at chainKey
	for _, f := range families {
		key := chainKey{f.name, s.Table, s.Chain}
		if _, known := t.chains[key]; known && f.carries(nfnl.Uint32(nfnl.Find(attrs, traceProto))) {
			at = key
			break
		}
	}
	s.Family = at.family
	if h := t.chains[at]; h != "" {
		*hook = h
	}
	s.Hook, s.Verdict = *hook, verdictOf(attrs)
	if s.Handle != 0 {
		s.Comment = t.comment(at, s.Handle)
	}
	s.In, s.Out = interfaceName(nfnl.Find(attrs, traceIIF)), interfaceName(nfnl.Find(attrs, traceOIF))
	s.From, s.To = addressesOf(nfnl.Find(attrs, traceNetwork), nfnl.Find(attrs, traceTransport))
	return s
}

func verdictOf(attrs []byte) string {
	if policy := nfnl.Find(attrs, tracePolicy); policy != nil {
		if nfnl.Uint32(policy) == 0 {
			return "drop"
		}
		return "accept"
	}
	v := nfnl.Find(attrs, traceVerdict)
	code := int32(nfnl.Uint32(nfnl.Find(v, unix.NFTA_VERDICT_CODE)))
	switch code {
	case 0:
		return "drop"
	case 1:
		return "accept"
	case 2:
		return "stolen"
	case 3:
		return "queue"
	case unix.NFT_CONTINUE:
		return "continue"
	case unix.NFT_RETURN:
		return "return"
	case unix.NFT_JUMP:
		return "jump " + nfnl.Text(v, unix.NFTA_VERDICT_CHAIN)
	case unix.NFT_GOTO:
		return "goto " + nfnl.Text(v, unix.NFTA_VERDICT_CHAIN)
	}
	return "verdict " + strconv.Itoa(int(code))
}

func interfaceName(index []byte) string {
	if len(index) == 0 || nfnl.Uint32(index) == 0 {
		return ""
	}
	if i, err := net.InterfaceByIndex(int(nfnl.Uint32(index))); err == nil {
		return i.Name
	}
	return fmt.Sprint("interface ", nfnl.Uint32(index))
}

// addressesOf reads the headers of IP and, of TCP, UDP and SCTP, the ports.
func addressesOf(network, transport []byte) (from, to netip.AddrPort) {
	var src, dst netip.Addr
	var proto byte
	switch {
	case len(network) >= 20 && network[0]>>4 == 4:
		src, _ = netip.AddrFromSlice(network[12:16])
		dst, _ = netip.AddrFromSlice(network[16:20])
		proto = network[9]
	case len(network) >= 40 && network[0]>>4 == 6:
		src, _ = netip.AddrFromSlice(network[8:24])
		dst, _ = netip.AddrFromSlice(network[24:40])
		proto = network[6]
	}
	var sport, dport uint16
	if ported := proto == unix.IPPROTO_TCP || proto == unix.IPPROTO_UDP || proto == unix.IPPROTO_SCTP; ported && len(transport) >= 4 {
		sport, dport = binary.BigEndian.Uint16(transport), binary.BigEndian.Uint16(transport[2:])
	}
	return netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
}
