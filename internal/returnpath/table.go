package returnpath

import (
	"encoding/binary"
	"maps"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/firewall/transaction"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// TableName is the name of our table, of the family inet.
const TableName = "libnet-return"

// sets of one Paths: elements of others do not belong to it.
type sets struct {
	// senders has the mark of each other host, by tunnel and MAC address; marks has all of them.
	senders, marks ruleset.Set
}

func newSets() *sets {
	mark := ruleset.Tuple{ruleset.Mark}
	return &sets{
		senders: ruleset.Set{Family: unix.NFPROTO_INET, Name: "senders", Key: ruleset.Tuple{ruleset.IIFName, ruleset.EtherSource}, Data: mark},
		marks:   ruleset.Set{Family: unix.NFPROTO_INET, Name: "marks", Key: mark},
	}
}

// Priorities: behind conntrack (-200), and one before mangle (-150), so that rules of others
// there see the mark, and filters of the reverse path look up by it. In postrouting any place is
// before the tunnel.
const (
	priMark  = -151
	priClear = -149
)

func (s *sets) table() ruleset.Table {
	return ruleset.Table{Family: unix.NFPROTO_INET, Sets: []*ruleset.Set{&s.senders, &s.marks}, Chains: []ruleset.Chain{
		{Name: "prerouting", Kind: "filter", Hook: unix.NF_INET_PRE_ROUTING, Priority: priMark, Rules: []ruleset.Rule{
			{Why: "out of a tunnel, from a client that is not behind it: which host led it here",
				// meta iifkind "vxlan" ct direction original fib saddr . iif oif 0 ct mark set iifname . ether saddr map @senders
				Does: ruleset.Rules(ruleset.IsVXLAN, ruleset.IsEthernet, isOriginal, sourceElsewhere, s.setConnMark)},
			{Why: "the connection's mark leads its answers", // ct mark @marks meta mark set ct mark
				Does: ruleset.Rules(s.hasConnMark, setMark)},
		}},
		{Name: "postrouting", Kind: "filter", Hook: unix.NF_INET_POST_ROUTING, Priority: priClear, Rules: []ruleset.Rule{
			{Why: "VXLAN would route its own packet by the mark, into the tunnel", // meta mark @marks meta mark set 0
				Does: ruleset.Rules(s.hasMark, ruleset.Just(ruleset.Constant(ruleset.RegKey, make([]byte, 4))), setMark)},
		}},
	}}
}

func isOriginal() []ruleset.Expr {
	const original = 0 // IP_CT_DIR_ORIGINAL
	return []ruleset.Expr{ruleset.CT(unix.NFT_CT_DIRECTION), ruleset.Compare(unix.NFT_CMP_EQ, []byte{original})}
}

// sourceElsewhere matches what came by an interface that no route to its source leads by: a
// container of the network, and another host of it, are behind the tunnel.
func sourceElsewhere() []ruleset.Expr {
	return []ruleset.Expr{{Name: "fib", Put: func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_FIB_DREG, ruleset.RegKey)
		a.Uint32(unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_OIF)
		a.Uint32(unix.NFTA_FIB_FLAGS, unix.NFTA_FIB_F_SADDR|unix.NFTA_FIB_F_IIF)
	}}, ruleset.Compare(unix.NFT_CMP_EQ, make([]byte, 4))}
}

// setConnMark comes with every packet of the client's: one that uses its port again may have come
// by another host.
func (s *sets) setConnMark() []ruleset.Expr {
	name := s.senders.Key[0]
	return []ruleset.Expr{
		name.Load(ruleset.RegKey), s.senders.Key[1].Load(ruleset.RegKey + name.Padded()/4), ruleset.Lookup(&s.senders),
		{Name: "ct", Put: func(a *nfnl.Attrs) {
			a.Uint32(unix.NFTA_CT_KEY, unix.NFT_CT_MARK)
			a.Uint32(unix.NFTA_CT_SREG, ruleset.RegData)
		}},
	}
}

func (s *sets) hasConnMark() []ruleset.Expr {
	return []ruleset.Expr{ruleset.CT(unix.NFT_CT_MARK), ruleset.Lookup(&s.marks)}
}
func (s *sets) hasMark() []ruleset.Expr {
	return []ruleset.Expr{ruleset.Meta(unix.NFT_META_MARK, ruleset.RegKey), ruleset.Lookup(&s.marks)}
}

func setMark() []ruleset.Expr {
	return []ruleset.Expr{ruleset.SetMeta(unix.NFT_META_MARK, ruleset.RegKey)}
}

// sender is another host, as its packets tell it.
type sender struct {
	device string
	mac    [6]byte
}

// sender has the packets of a sender marked.
func (s *sets) sender(from sender, mark uint32) ruleset.Elem {
	return ruleset.Elem{Set: &s.senders, Key: s.senders.Key.Of([]byte(from.device), from.mac[:]), Data: ruleset.Host32(mark)}
}

// mark has packets of connections with a mark led by it.
func (s *sets) mark(mark uint32) ruleset.Elem {
	return ruleset.Elem{Set: &s.marks, Key: ruleset.Host32(mark)}
}

// elements of our table.
type elements struct {
	senders map[sender]uint32
	marks   map[uint32]bool
}

// elementsOf are those by which senders have their marks.
func elementsOf(senders map[sender]uint32) elements { return elements{senders, marksOf(senders)} }

func (e elements) equal(f elements) bool {
	return maps.Equal(e.senders, f.senders) && maps.Equal(e.marks, f.marks)
}

// read returns the elements in the kernel; whole says that our table is as this release writes it,
// there that there is one. Of a table that is not whole no elements are read.
func (s *sets) read(nl *nfnl.Conn) (all elements, whole, there bool, err error) {
	t := s.table()
	whole, there, err = transaction.StandsAs(nl, TableName, t)
	if err != nil || !whole {
		return elements{}, false, there, err
	}
	all = elementsOf(map[sender]uint32{})
	err = transaction.EachElem(nl, TableName, &s.senders, func(e ruleset.Elem) {
		if fields, ok := s.senders.Key.Split(e.Key); ok && len(e.Data) >= 4 {
			all.senders[sender{text(fields[0]), [6]byte(fields[1])}] = binary.NativeEndian.Uint32(e.Data)
		}
	})
	if err == nil {
		err = transaction.EachElem(nl, TableName, &s.marks, func(e ruleset.Elem) {
			if len(e.Key) >= 4 {
				all.marks[binary.NativeEndian.Uint32(e.Key)] = true
			}
		})
	}
	return all, true, true, err
}

// text is a name in a field of the size of names.
func text(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// write brings our table from the elements that are there to those that are wanted: the table goes
// with the last sender.
func (s *sets) write(nl *nfnl.Conn, generation uint32, have elements, whole, there bool, want elements) error {
	t, b := s.table(), transaction.New(TableName, generation)
	if there && (!whole || len(want.senders) == 0) {
		b.DropTable(t.Family)
		have = elements{}
	}
	if len(want.senders) > 0 && !whole {
		writeTable(b, t)
		have = elements{}
	}
	s.change(b, have, want)
	return b.Commit(nl)
}

// change brings the elements from those that are there to those that are wanted. Either set may lack
// some: what is not there cannot be deleted.
func (s *sets) change(b *transaction.Batch, have, want elements) {
	for from, mark := range have.senders {
		if now, stays := want.senders[from]; !stays || now != mark {
			b.Del(s.sender(from, mark))
		}
	}
	for mark := range have.marks {
		if !want.marks[mark] {
			b.Del(s.mark(mark))
		}
	}
	for mark := range want.marks {
		if !have.marks[mark] {
			b.Put(s.mark(mark))
		}
	}
	for from, mark := range want.senders {
		if was, is := have.senders[from]; !is || was != mark {
			b.Put(s.sender(from, mark))
		}
	}
}

// User data of a set has nft(8) list marks as numbers of this machine: it says which part it is
// about (NFTNL_UDATA_SET_KEYBYTEORDER, …_DATABYTEORDER of libnftnl), and the order of bytes.
const (
	udataKeyByteOrder  = 0
	udataDataByteOrder = 1
	byteOrderHost      = 1
)

func writeTable(b *transaction.Batch, t ruleset.Table) {
	b.WriteRules(t, func(s *ruleset.Set, id uint32) {
		datatype, size := s.Key.Datatype()
		b.Add(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, s.Family, func(a *nfnl.Attrs) {
			a.String(unix.NFTA_SET_TABLE, TableName)
			a.String(unix.NFTA_SET_NAME, s.Name)
			a.Uint32(unix.NFTA_SET_KEY_TYPE, datatype)
			a.Uint32(unix.NFTA_SET_KEY_LEN, size)
			a.Uint32(unix.NFTA_SET_ID, id)
			flags, marks := uint32(0), byte(udataKeyByteOrder)
			if s.Data != nil {
				datatype, size := s.Data.Datatype()
				flags, marks = unix.NFT_SET_MAP, udataDataByteOrder
				a.Uint32(unix.NFTA_SET_DATA_TYPE, datatype)
				a.Uint32(unix.NFTA_SET_DATA_LEN, size)
			}
			a.Uint32(unix.NFTA_SET_FLAGS, flags)
			a.Bytes(unix.NFTA_SET_USERDATA, append([]byte{marks, 4}, ruleset.Host32(byteOrderHost)...))
		})
	})
}
