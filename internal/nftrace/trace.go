package nftrace

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

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
	// Hops is how many routers may still pass it on (TTL); 0: as for From.
	Hops uint8
}

// Own says that the step is none of a rule: a chain of the trace itself shows that the packet came
// there.
func (s Step) Own() bool { return s.Table == TableName }

// Dropped says that the packet went no further.
func (s Step) Dropped() bool { return s.Verdict == "drop" }

// Tracer marks packets until Close.
type Tracer struct {
	table, events *nfnl.Conn
	more          []*nfnl.Conn // of tables of other families
	packet        *Packet
	leads         bool
	chains        map[chainKey]string // the hook of a chain; "" of one without
	comments      map[chainKey]map[uint64]string
}

type chainKey struct{ family, table, chain string }

// Packet is the one packet that several tracers follow, each in another network namespace. The first
// packet that the tracer marks which leads is it.
type Packet struct {
	known chan struct{}
	print fingerprint
}

// NewPacket is a packet that is still to come.
func NewPacket() *Packet { return &Packet{known: make(chan struct{})} }

// wait waits until the packet is known, and a short while longer than ctx: an answer may be faster
// than what the kernel tells.
func (p *Packet) wait(ctx context.Context) (fingerprint, bool) {
	select {
	case <-p.known:
	case <-ctx.Done():
	}
	select {
	case <-p.known:
		return p.print, true
	case <-time.After(quiet):
		return fingerprint{}, false
	}
}

// Start marks the packets that match, in the calling thread's network namespace, to follow p: it is
// the first of them if the tracer leads. It needs Linux 5.12. Only one Tracer can be there at once.
func Start(m Match, p *Packet, leads bool) (t *Tracer, err error) {
	t = &Tracer{packet: p, leads: leads, comments: map[chainKey]map[uint64]string{}}
	if t.table, err = nfnl.Open(); err != nil {
		return nil, err
	}
	if t.events, err = nfnl.Open(); err != nil {
		return nil, errors.Join(err, t.table.Close())
	}
	var devices []string
	err = t.events.Join(groupNFTrace)
	if err == nil {
		t.chains, devices, err = chainsOf(t.table)
	}
	if err == nil {
		devices = append(devices, m.Devices...)
		slices.Sort(devices)
		t.more, err = mark(t.table, m, slices.Compact(devices))
	}
	if err == nil {
		t.chains, _, err = chainsOf(t.table) // with ours
	}
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// Close ends the marking.
func (t *Tracer) Close() error {
	errs := []error{t.table.Close(), t.events.Close()}
	for _, c := range t.more {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// fingerprint is what tells a packet from others of its connection, and what translation of
// addresses leaves as it is.
type fingerprint struct {
	known, protocol byte
	ident           uint16 // of IPv4
	inside          uint64 // sequence of TCP with its flags, header of an echo, data of UDP
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
	case f.protocol == unix.IPPROTO_UDP && len(transport) >= 16:
		f.inside = binary.BigEndian.Uint64(transport[8:])
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
	if header := nfnl.Find(attrs, traceNetwork); len(header) >= 20 {
		s.Hops = header[8] // of IPv4
		if header[0]>>4 == 6 {
			s.Hops = header[7]
		}
	}
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
