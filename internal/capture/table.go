package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// TableName is our table, of the family inet.
const TableName = "libnet-names"

// tableConfig is what the rules are made of.
type tableConfig struct {
	queue, queues int
	port4, port6  uint16 // of the listener; 0: none
	limit         int    // queries per second; 0: no limit
	group         uint32 // of interfaces
}

// table is our rules. They go with the socket: only it may change them.
type table struct {
	conf tableConfig
	conn *conn
	// unowned says that the kernel has no tables of an owner (before 5.12);
	// compat, that it has no expression for queues, only the target of xtables.
	unowned, compat bool
	// left says that there is a table without an owner, which has to go first.
	left, made bool
}

func newTable(c tableConfig) (*table, error) {
	made, err := dialTables()
	if err != nil {
		return nil, fmt.Errorf("rules for DNS queries: %w", err)
	}
	return &table{conf: c, conn: made}, nil
}

// close removes the rules.
func (t *table) close() error {
	var err error
	if t.made {
		t.made = false
		b := new(batch)
		b.deleteTable()
		if err = t.conn.commit(b); errors.Is(err, unix.ENOENT) {
			err = nil
		}
	}
	if err = errors.Join(err, t.conn.close()); err != nil {
		return fmt.Errorf("remove rules for DNS queries: %w", err)
	}
	return nil
}

// aliveSet has a protocol while its rules count.
var aliveSet = set{name: "alive", key: inetProto, size: 1, timeout: aliveFor}

var aliveElements = []element{{key: []byte{unix.IPPROTO_UDP}}, {key: []byte{unix.IPPROTO_TCP}}}

// make makes the table anew: queries by the group, and from these prefixes, are captured.
func (t *table) make(from []netip.Prefix) error {
	for {
		b, err := t.plan(from)
		if err == nil {
			err = t.conn.commit(b)
		}
		switch {
		case err == nil:
			t.made, t.left = true, false // from now on it is ours
			return nil
		case !t.unowned && !t.left && errors.Is(err, unix.EOPNOTSUPP):
			t.left = true
		case !t.unowned && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)):
			t.unowned = true
		case !t.compat && errors.Is(err, unix.ENOENT):
			t.compat = true
		case errors.Is(err, unix.EPERM):
			return fmt.Errorf("rules for DNS queries: table inet %s belongs to another process: %w", TableName, err)
		default:
			return fmt.Errorf("rules for DNS queries: %w", err)
		}
	}
}

// plan returns the transaction that makes the table anew.
func (t *table) plan(from []netip.Prefix) (*batch, error) {
	b := new(batch)
	b.addTable(t.unowned || t.left) // a table that is there keeps or lacks its owner
	b.deleteTable()                 // what was there before
	b.addTable(t.unowned)
	b.addSet(aliveSet)
	b.addElements(aliveSet, aliveElements)
	for _, f := range t.families() {
		b.addSet(f.from)
		b.addElements(f.from, f.elements(from))
		if t.conf.limit > 0 {
			b.addSet(f.rates)
		}
	}
	// Before conntrack, which then knows nothing of what is answered here.
	b.addChain("early", "filter", unix.NF_INET_PRE_ROUTING, -310)
	// Before the rules of Service addresses (dstnat).
	b.addChain("tcp", "nat", unix.NF_INET_PRE_ROUTING, -105)
	b.addChain("input", "filter", unix.NF_INET_LOCAL_IN, -5)
	for _, name := range []string{"queries", "connections", "queue"} {
		b.addChain(name, "", 0, 0)
	}
	t.toQueues(b)
	t.toListeners(b)
	return b, b.err
}

// toQueues has the queries over UDP wait in the queue; and what begins a connection by
// the group if its source is not captured yet, so that it is by the time it goes on.
func (t *table) toQueues(b *batch) {
	b.addRule("early", destination(unix.IPPROTO_UDP, dnsPort), alive(), jump("queries"))
	if t.conf.group != 0 { // every interface is in that unless it is put into another one
		b.addRule("early", destination(unix.IPPROTO_TCP, dnsPort), alive(), inGroup(t.conf.group), notFrom(ownPorts), begins(), jump("connections"))
		b.addRule("queries", inGroup(t.conf.group), jump("queue"))
	}
	for _, f := range t.families() {
		b.addRule("queries", family(f.nfproto), f.source(f.from), jump("queue"))
		b.addRule("connections", family(f.nfproto), f.source(f.from), verdict(expr.VerdictReturn))
		if t.conf.limit > 0 {
			b.addRule("queue", family(f.nfproto), f.over(t.conf.limit))
		}
	}
	b.addRule("connections", jump("queue"))
	b.addRule("queue", t.toQueue())
}

// toListeners has connections go to the listeners.
func (t *table) toListeners(b *batch) {
	for _, f := range t.families() {
		if f.port == 0 {
			continue
		}
		b.addRule("tcp", destination(unix.IPPROTO_TCP, dnsPort), alive(), family(f.nfproto), f.source(f.from), notFrom(ownPorts), redirect(f.port))
		// The listener has an address of every network, and is for the containers only.
		b.addRule("input", destination(unix.IPPROTO_TCP, f.port), alive(), family(f.nfproto), notTranslated(), verdict(expr.VerdictDrop))
	}
}

// keepAlive has the rules count for some more seconds. The element is added, so
// that it can be deleted, so that it can be added with its time.
func (t *table) keepAlive() error {
	if !t.made {
		return unix.ENOENT
	}
	b := new(batch)
	b.addElements(aliveSet, aliveElements)
	b.deleteElements(aliveSet, aliveElements)
	b.addElements(aliveSet, aliveElements)
	return t.conn.commit(b)
}

// change has other prefixes captured than before.
func (t *table) change(before, now []netip.Prefix) error {
	only := func(those, not []netip.Prefix) []netip.Prefix {
		return slices.DeleteFunc(slices.Clone(those), func(p netip.Prefix) bool { return slices.Contains(not, p) })
	}
	b := new(batch)
	for _, f := range t.families() {
		b.deleteElements(f.from, f.elements(only(before, now)))
		b.addElements(f.from, f.elements(only(now, before)))
	}
	return t.conn.commit(b)
}

// addressFamily is the part of the rules for IPv4 or IPv6.
type addressFamily struct {
	nfproto     byte
	from, rates set
	port        uint16
	offset, len uint32 // of the source in the header
}

func (t *table) families() []addressFamily {
	all := []addressFamily{
		{nfproto: unix.NFPROTO_IPV4, port: t.conf.port4, offset: 12, len: 4, from: set{name: "from4", key: ipv4Address}, rates: set{name: "rates4", key: ipv4Address}},
		{nfproto: unix.NFPROTO_IPV6, port: t.conf.port6, offset: 8, len: 16, from: set{name: "from6", key: ipv6Address}, rates: set{name: "rates6", key: ipv6Address}},
	}
	for i := range all {
		f := &all[i]
		f.from.size, f.from.interval = f.len, true
		f.rates.size, f.rates.dynamic, f.rates.timeout, f.rates.most = f.len, true, rateMemory, rateSources
	}
	return all
}

// elements returns those of its prefixes.
func (f addressFamily) elements(of []netip.Prefix) (all []element) {
	for _, p := range of {
		if p.Addr().BitLen() != int(f.len)*8 {
			continue
		}
		all = append(all, element{key: p.Addr().AsSlice()})
		if end := after(p); end.IsValid() {
			all = append(all, element{key: end.AsSlice(), intervalEnd: true})
		}
	}
	return all
}

// after returns the first address behind a prefix; none: there is no such.
func after(p netip.Prefix) netip.Addr {
	last := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(last)*8; i++ {
		last[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(last)
	return a.Next()
}

// toQueue has the packet wait in one of our queues, by the CPU that it is on; without us it
// passes.
func (t *table) toQueue() []expr.Any {
	if !t.compat {
		return []expr.Any{&expr.Queue{Num: uint16(t.conf.queue), Total: uint16(t.conf.queues), Flag: expr.QueueFlagBypass | expr.QueueFlagFanout}}
	}
	info := make([]byte, 8) // struct xt_NFQ_info_v3, with its padding
	binary.NativeEndian.PutUint16(info, uint16(t.conf.queue))
	binary.NativeEndian.PutUint16(info[2:], uint16(t.conf.queues))
	binary.NativeEndian.PutUint16(info[4:], 1|2) // NFQ_FLAG_BYPASS, NFQ_FLAG_CPU_FANOUT
	unknown := xt.Unknown(info)
	return []expr.Any{&expr.Target{Name: "NFQUEUE", Rev: 3, Info: &unknown}}
}

func be16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
