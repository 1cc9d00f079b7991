package foreign

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// passer is what is known of all packets that come from a bridge, or go to it.
type passer struct {
	name   string
	index  uint32
	from   bool         // the bridge is where they come from
	subnet netip.Prefix // of the bridge's side
}

// passers returns the packets of an interface, by its addresses; those of a missing
// interface have no more than its name.
func passers(name string) []passer {
	all := []passer{}
	var addrs []net.Addr
	index := uint32(0)
	if i, err := net.InterfaceByName(name); err == nil {
		index = uint32(i.Index)
		addrs, _ = i.Addrs()
	}
	subnets := []netip.Prefix{{}}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
			subnets = append(subnets, p.Masked())
		}
	}
	for _, s := range subnets {
		all = append(all, passer{name, index, true, s}, passer{name, index, false, s})
	}
	return all
}

// value returns the bytes that a field of all the packets has, and how many bits of
// them are known; 0: none.
func (p passer) value(field string) ([]byte, int) {
	switch field {
	case "iifname", "oifname":
		if p.from == (field == "iifname") {
			return append([]byte(p.name), make([]byte, unix.IFNAMSIZ-len(p.name))...), unix.IFNAMSIZ * 8
		}
	case "iif", "oif":
		if p.from == (field == "iif") && p.index != 0 {
			return binary.NativeEndian.AppendUint32(nil, p.index), 32
		}
	case "saddr4", "daddr4", "saddr6", "daddr6":
		if p.subnet.IsValid() && p.from == (field[0] == 's') && p.subnet.Addr().Is4() == (field[5] == '4') {
			return p.subnet.Addr().AsSlice(), p.subnet.Bits()
		}
	case "nfproto":
		switch {
		case !p.subnet.IsValid():
		case p.subnet.Addr().Is4():
			return []byte{unix.NFPROTO_IPV4}, 8
		default:
			return []byte{unix.NFPROTO_IPV6}, 8
		}
	}
	return nil, 0
}

// span returns the smallest and the largest value that the field of these packets has;
// nil: it is not known.
func (p passer) span(field string) (first, last []byte) {
	have, known := p.value(field)
	if known == 0 {
		return nil, nil
	}
	first, last = bytes.Clone(have), bytes.Clone(have)
	for i := known; i < len(have)*8; i++ {
		first[i/8] &^= 0x80 >> (i % 8)
		last[i/8] |= 0x80 >> (i % 8)
	}
	return first, last
}

// reader reads the expressions of one rule for some packets.
type reader struct {
	c     *conn
	fam   family
	t     *tableRules
	p     passer
	table string

	fields      []string // loaded, and compared or to be compared
	compared    bool
	mask        int // leading bits that are compared; 0: all
	does, chain string
	named       bool // it asks for something that all these packets have
}

// verdict says what a rule does with all these packets: "drop", "reject", "accept" or
// "return", itself or by a chain that it jumps to; empty: nothing, or that cannot be told.
func (c *conn) verdict(fam family, t *tableRules, r rule, p passer) string {
	v := reader{c: c, fam: fam, t: t, p: p, table: r.table}
	if err := nfnl.Each(r.exprs, func(_ uint16, e []byte) error { return v.read(e) }); err != nil || !v.named {
		return ""
	}
	if v.does == "jump" || v.does == "goto" {
		return t.decides(v.chain, 1)
	}
	return v.does
}

// read takes the next expression; errNotAll if it asks for what some of the packets may
// not have.
func (v *reader) read(e []byte) error {
	data := nfnl.Find(e, unix.NFTA_EXPR_DATA)
	value := func(in []byte, typ uint16) []byte { return nfnl.Find(nfnl.Find(in, typ), unix.NFTA_DATA_VALUE) }
	switch name := nfnl.Text(e, unix.NFTA_EXPR_NAME); {
	case name == "counter" || name == "log" || name == "target" && nfnl.Text(data, unix.NFTA_TARGET_NAME) == "LOG":
	case name == "reject" || name == "target" && nfnl.Text(data, unix.NFTA_TARGET_NAME) == "REJECT":
		v.does = "reject"
	case name == "meta":
		v.load(metaField(data))
	case name == "payload":
		v.load(payloadField(data))
	case name == "bitwise":
		v.mask = maskBits(value(data, unix.NFTA_BITWISE_MASK))
	case name == "cmp":
		return v.asks(v.compare(nfnl.Uint32(nfnl.Find(data, unix.NFTA_CMP_OP)), value(data, unix.NFTA_CMP_DATA)))
	case name == "range":
		return v.asks(v.between(nfnl.Uint32(nfnl.Find(data, unix.NFTA_RANGE_OP)), value(data, unix.NFTA_RANGE_FROM_DATA), value(data, unix.NFTA_RANGE_TO_DATA)))
	case name == "lookup":
		return v.asks(v.lookup(data))
	case name == "immediate":
		v.does, v.chain = decision(nfnl.Find(data, unix.NFTA_IMMEDIATE_DATA))
	default:
		return errNotAll
	}
	return nil
}

// load takes a field that is compared next, once or more often.
func (v *reader) load(field string) {
	if v.compared {
		v.fields, v.compared = nil, false
	}
	v.fields, v.mask = append(v.fields, field), 0
}

// asks ends a comparison.
func (v *reader) asks(all bool) error {
	v.compared = true
	if !all {
		return errNotAll
	}
	v.named = true
	return nil
}

// field is the only one that was loaded; empty: there are more.
func (v *reader) field() string {
	if len(v.fields) != 1 {
		return ""
	}
	return v.fields[0]
}

// compare says that all packets pass a comparison with want.
func (v *reader) compare(op uint32, want []byte) bool {
	if op == unix.NFT_CMP_EQ {
		return v.p.equal(v.field(), want, v.mask)
	}
	first, last := v.p.span(v.field())
	if v.mask > 0 || first == nil || len(want) != len(first) {
		return false
	}
	switch op {
	case unix.NFT_CMP_NEQ:
		return bytes.Compare(want, first) < 0 || bytes.Compare(want, last) > 0
	case unix.NFT_CMP_LT:
		return bytes.Compare(last, want) < 0
	case unix.NFT_CMP_LTE:
		return bytes.Compare(last, want) <= 0
	case unix.NFT_CMP_GT:
		return bytes.Compare(first, want) > 0
	case unix.NFT_CMP_GTE:
		return bytes.Compare(first, want) >= 0
	}
	return false
}

// between says that all packets are in a range, or all outside of one.
func (v *reader) between(op uint32, from, to []byte) bool {
	first, last := v.p.span(v.field())
	if v.mask > 0 || first == nil || len(from) != len(first) || len(to) != len(first) {
		return false
	}
	if op == unix.NFT_RANGE_NEQ {
		return bytes.Compare(last, from) < 0 || bytes.Compare(first, to) > 0
	}
	return bytes.Compare(from, first) <= 0 && bytes.Compare(last, to) <= 0
}

// equal says that the field of all packets begins with want, as far as mask goes.
func (p passer) equal(field string, want []byte, mask int) bool {
	have, known := p.value(field)
	bits := len(want) * 8
	if mask > 0 {
		bits = min(bits, mask)
	}
	if known == 0 || bits > known || len(want) > len(have) {
		return false
	}
	for i := range bits {
		if (have[i/8]^want[i/8])&(0x80>>(i%8)) != 0 {
			return false
		}
	}
	return bits > 0
}

func metaField(data []byte) string {
	if nfnl.Find(data, unix.NFTA_META_DREG) == nil {
		return ""
	}
	return map[uint32]string{
		unix.NFT_META_IIF: "iif", unix.NFT_META_OIF: "oif", unix.NFT_META_IIFNAME: "iifname", unix.NFT_META_OIFNAME: "oifname",
		unix.NFT_META_NFPROTO: "nfproto",
	}[nfnl.Uint32(nfnl.Find(data, unix.NFTA_META_KEY))]
}

// payloadField names an address, of which the first bytes may be all that is loaded.
func payloadField(data []byte) string {
	size := nfnl.Uint32(nfnl.Find(data, unix.NFTA_PAYLOAD_LEN))
	if nfnl.Uint32(nfnl.Find(data, unix.NFTA_PAYLOAD_BASE)) != unix.NFT_PAYLOAD_NETWORK_HEADER {
		return ""
	}
	switch at := nfnl.Uint32(nfnl.Find(data, unix.NFTA_PAYLOAD_OFFSET)); {
	case at == 12 && size <= 4:
		return "saddr4"
	case at == 16 && size <= 4:
		return "daddr4"
	case at == 8 && size <= 16 && size != 1:
		return "saddr6"
	case at == 24 && size <= 16:
		return "daddr6"
	}
	return ""
}

// maskBits is the length of a netmask.
func maskBits(mask []byte) int {
	ones, _ := net.IPMask(mask).Size()
	return ones
}

// errNotAll ends the reading of a rule that asks for more.
var errNotAll = errNotAllPackets{}

type errNotAllPackets struct{}

func (errNotAllPackets) Error() string { return "not all packets" }

// droppingRules adds the rules that drop all packets of an interface, unless an earlier
// rule of the chain lets all of them go.
func (c *conn) droppingRules(fam family, t *tableRules, interfaces []string) {
	type way struct {
		chain string
		passer
	}
	var all []passer
	for _, name := range interfaces {
		all = append(all, passers(name)...)
	}
	decided := map[way]bool{}
	for _, r := range t.all {
		var names []string
		end := ""
		for _, p := range all {
			if decided[way{r.chain, p}] {
				continue
			}
			switch does := c.verdict(fam, t, r, p); does {
			case "":
			case "accept", "return":
				decided[way{r.chain, p}] = true
			default:
				if !slices.Contains(names, p.name) {
					names = append(names, p.name)
				}
				end = does
			}
		}
		if end != "" {
			t.drops = append(t.drops, Drop{Family: fam.name, Table: r.table, Chain: r.chain, End: end, Named: names, Handle: r.handle})
		}
	}
}

// rule is a rule of another owner.
type rule struct {
	table, chain string
	handle       uint64
	exprs        []byte
}

func newRule(attrs []byte, table, chain string) rule {
	return rule{table, chain, nfnl.Uint64(nfnl.Find(attrs, unix.NFTA_RULE_HANDLE)), bytes.Clone(nfnl.Find(attrs, unix.NFTA_RULE_EXPRESSIONS))}
}
