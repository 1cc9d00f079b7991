package firewall

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// ForeignChain is somebody else's base chain at hook forward that drops or
// rejects what none of its rules lets through.
type ForeignChain struct {
	Family string // as nft names it: "ip", "ip6", "inet", "bridge"; "legacy ip", "legacy ip6" for the older iptables
	Table  string
	Chain  string
	End    string // "policy drop", "last rule drop", "last rule reject"
	// Named are those of the interfaces asked for that a rule of the table
	// names: somebody has thought of them.
	Named []string
}

// ForwardDrops returns other owners' chains that may drop what networks
// forward, in the order of families. It changes nothing. Without nf_tables only
// the older iptables is looked at. A chain that ends in a jump is not followed.
func (f *Firewall) ForwardDrops(ctx context.Context, interfaces ...string) ([]ForeignChain, error) {
	var all []ForeignChain
	err := f.do(ctx, func(c *conn) error {
		all = nil
		for _, fam := range foreignFamilies {
			chains, err := c.forwardDrops(fam, interfaces)
			if err != nil {
				return err
			}
			all = append(all, chains...)
		}
		return nil
	})
	if errors.Is(supported(err), ErrUnsupported) {
		err = nil
	}
	legacy, legacyErr := legacyForwardDrops(interfaces)
	if err = errors.Join(err, legacyErr); err != nil {
		err = fmt.Errorf("list forward chains of others: %w", err)
	}
	return append(all, legacy...), err
}

// family is an address family of nf_tables and its name.
type family struct {
	number uint8
	name   string
}

// foreignFamilies are those with a hook forward.
var foreignFamilies = []family{
	{unix.NFPROTO_INET, "inet"}, {unix.NFPROTO_IPV4, "ip"}, {unix.NFPROTO_IPV6, "ip6"}, {unix.NFPROTO_BRIDGE, "bridge"},
}

// hookForward is NF_INET_FORWARD and NF_BR_FORWARD.
const hookForward = 2

func (c *conn) forwardDrops(fam family, interfaces []string) ([]ForeignChain, error) {
	var all []ForeignChain
	err := c.dump(unix.NFT_MSG_GETCHAIN, fam.number, nil, func(attrs []byte) error {
		hook := nfnl.Find(attrs, unix.NFTA_CHAIN_HOOK)
		ch := ForeignChain{Family: fam.name, Table: text(attrs, unix.NFTA_CHAIN_TABLE), Chain: text(attrs, unix.NFTA_CHAIN_NAME)}
		if hook == nil || nfnl.Uint32(nfnl.Find(hook, unix.NFTA_HOOK_HOOKNUM)) != hookForward || ch.Table == tableName {
			return nil
		}
		if nfnl.Uint32(nfnl.Find(attrs, unix.NFTA_CHAIN_POLICY)) == nfDrop {
			ch.End = "policy drop"
		}
		all = append(all, ch)
		return nil
	})
	if err != nil {
		return nil, err
	}
	var drops []ForeignChain
	for _, ch := range all {
		if err := c.examine(fam, &ch, interfaces); err != nil {
			return nil, err
		}
		if ch.End != "" {
			drops = append(drops, ch)
		}
	}
	return drops, nil
}

// examine goes through the rules of the chain's table: its last rule may decide
// before the policy does, and any may name an interface.
func (c *conn) examine(fam family, ch *ForeignChain, interfaces []string) error {
	var last []byte
	var named []string
	err := c.dump(unix.NFT_MSG_GETRULE, fam.number, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_RULE_TABLE, ch.Table)
	}, func(attrs []byte) error {
		if text(attrs, unix.NFTA_RULE_CHAIN) == ch.Chain {
			last = bytes.Clone(nfnl.Find(attrs, unix.NFTA_RULE_EXPRESSIONS))
		}
		named = append(named, naming(attrs, interfaces)...)
		return nil
	})
	switch end := always(last); end {
	case "":
	case "accept":
		ch.End = ""
	default:
		ch.End = cmp.Or(ch.End, "last rule "+end)
	}
	slices.Sort(named)
	ch.Named = slices.Compact(named)
	if errors.Is(err, unix.ENOENT) { // gone meanwhile
		ch.End, err = "", nil
	}
	return err
}

// naming returns the interfaces that stand in b with the final NUL that a
// comparison with a whole name has.
func naming(b []byte, interfaces []string) []string {
	var all []string
	for _, name := range interfaces {
		if bytes.Contains(b, append([]byte(name), 0)) {
			all = append(all, name)
		}
	}
	return all
}

// always returns what a rule does with each packet, "accept", "drop" or
// "reject"; empty if that depends on the packet.
func always(exprs []byte) string {
	does := ""
	_ = nfnl.Each(exprs, func(_ uint16, e []byte) error {
		data := nfnl.Find(e, unix.NFTA_EXPR_DATA)
		switch name := text(e, unix.NFTA_EXPR_NAME); {
		case name == "counter" || name == "log":
		case name == "reject" || name == "target" && text(data, unix.NFTA_TARGET_NAME) == "REJECT":
			does += "reject"
		case name == "immediate":
			does += decision(nfnl.Find(data, unix.NFTA_IMMEDIATE_DATA))
		default:
			does += "?"
		}
		return nil
	})
	if !slices.Contains([]string{"accept", "drop", "reject"}, does) {
		return ""
	}
	return does
}

func decision(data []byte) string {
	code := nfnl.Find(nfnl.Find(data, unix.NFTA_DATA_VERDICT), unix.NFTA_VERDICT_CODE)
	switch {
	case code == nil:
	case nfnl.Uint32(code) == nfDrop:
		return "drop"
	case nfnl.Uint32(code) == nfAccept:
		return "accept"
	}
	return "?"
}

// BridgeNetfilter says whether frames inside of a bridge pass the rules of IPv4
// or IPv6, too: br_netfilter is there and on in the calling thread's namespace.
func BridgeNetfilter() bool {
	for _, tool := range []string{"iptables", "ip6tables"} {
		on, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-" + tool)
		if err == nil && strings.TrimSpace(string(on)) != "0" {
			return true
		}
	}
	return false
}

// text reads an attribute that Attrs.String wrote; empty if there is none.
func text(attrs []byte, typ uint16) string {
	return strings.TrimRight(string(nfnl.Find(attrs, typ)), "\x00")
}
