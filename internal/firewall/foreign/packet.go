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

// verdict says what a rule does with all these packets: "drop", "reject", "accept" or
// "return", itself or by a chain that it jumps to; empty: nothing, or that cannot be told.
func (c *conn) verdict(fam family, t *tableRules, r rule, p passer) string {
	var field string
	mask := 0 // leading bits that are compared; 0: all
	does, chain, named := "", "", false
	err := nfnl.Each(r.exprs, func(_ uint16, e []byte) error {
		data := nfnl.Find(e, unix.NFTA_EXPR_DATA)
		switch name := nfnl.Text(e, unix.NFTA_EXPR_NAME); {
		case name == "counter" || name == "log" || name == "target" && nfnl.Text(data, unix.NFTA_TARGET_NAME) == "LOG":
		case name == "reject" || name == "target" && nfnl.Text(data, unix.NFTA_TARGET_NAME) == "REJECT":
			does = "reject"
		case name == "meta":
			field, mask = metaField(data), 0
		case name == "payload":
			field, mask = payloadField(data), 0
		case name == "bitwise":
			mask = maskBits(nfnl.Find(nfnl.Find(data, unix.NFTA_BITWISE_MASK), unix.NFTA_DATA_VALUE))
		case name == "cmp":
			want := nfnl.Find(nfnl.Find(data, unix.NFTA_CMP_DATA), unix.NFTA_DATA_VALUE)
			if nfnl.Uint32(nfnl.Find(data, unix.NFTA_CMP_OP)) != unix.NFT_CMP_EQ || !p.equal(field, want, mask) {
				return errNotAll
			}
			named = true
		case name == "lookup":
			d, ch, ok := c.lookup(fam, r.table, data, field, p)
			if !ok {
				return errNotAll
			}
			named = true
			if d != "" {
				does, chain = d, ch
			}
		case name == "immediate":
			does, chain = decision(nfnl.Find(data, unix.NFTA_IMMEDIATE_DATA))
		default:
			return errNotAll
		}
		return nil
	})
	if err != nil || !named {
		return ""
	}
	if does == "jump" || does == "goto" {
		does = t.decides(chain, 1)
	}
	return does
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

// lookup says whether the field of all packets is in a set, and the verdict that a
// verdict map has for it. Sets of ranges are not read.
func (c *conn) lookup(fam family, table string, data []byte, field string, p passer) (does, chain string, ok bool) {
	_, known := p.value(field)
	if known == 0 || nfnl.Uint32(nfnl.Find(data, unix.NFTA_LOOKUP_FLAGS)) != 0 {
		return "", "", false
	}
	ranges := false
	err := c.list(unix.NFT_MSG_GETSETELEM, fam, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_SET_ELEM_LIST_TABLE, table)
		a.String(unix.NFTA_SET_ELEM_LIST_SET, nfnl.Text(data, unix.NFTA_LOOKUP_SET))
	}, func(attrs []byte) error {
		return nfnl.Each(nfnl.Find(attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS), func(_ uint16, e []byte) error {
			ranges = ranges || nfnl.Find(e, unix.NFTA_SET_ELEM_FLAGS) != nil
			if p.equal(field, nfnl.Find(nfnl.Find(e, unix.NFTA_SET_ELEM_KEY), unix.NFTA_DATA_VALUE), 0) {
				ok = true
				does, chain = decision(nfnl.Find(e, unix.NFTA_SET_ELEM_DATA))
			}
			return nil
		})
	})
	return does, chain, ok && !ranges && err == nil
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
