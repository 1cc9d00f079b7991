package nftrace

import (
	"bytes"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// family is one of tables that judge packets of IP.
type family struct {
	name   string
	number uint8
	only   uint32 // the protocol whose packets come there; 0: all
}

func (f family) carries(nfproto uint32) bool {
	return f.only == 0 || nfproto == 0 || f.only == nfproto
}

var families = []family{
	{"inet", unix.NFPROTO_INET, 0}, {"ip", unix.NFPROTO_IPV4, unix.NFPROTO_IPV4}, {"ip6", unix.NFPROTO_IPV6, unix.NFPROTO_IPV6},
	{"bridge", unix.NFPROTO_BRIDGE, 0}, {"netdev", unix.NFPROTO_NETDEV, 0},
}

// hooks are the names of NF_INET_*.
var hooks = []string{"prerouting", "input", "forward", "output", "postrouting"}

// chainsOf lists the chains of all tables with the hook of each.
func chainsOf(c *nfnl.Conn) (map[chainKey]string, error) {
	all := map[chainKey]string{}
	for _, f := range families {
		m := nfnl.Message{Subsystem: unix.NFNL_SUBSYS_NFTABLES, Type: unix.NFT_MSG_GETCHAIN, Family: f.number}
		err := c.Dump(m, func(a nfnl.Answer) error {
			hook := ""
			if h := nfnl.Find(a.Attrs, unix.NFTA_CHAIN_HOOK); h != nil {
				if n := nfnl.Uint32(nfnl.Find(h, unix.NFTA_HOOK_HOOKNUM)); int(n) < len(hooks) {
					hook = hooks[n]
				}
			}
			all[chainKey{f.name, nfnl.Text(a.Attrs, unix.NFTA_CHAIN_TABLE), nfnl.Text(a.Attrs, unix.NFTA_CHAIN_NAME)}] = hook
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// comment is that of a rule; empty if it has none, or is gone.
func (t *Tracer) comment(at chainKey, handle uint64) string {
	known, read := t.comments[at]
	if !read {
		known = map[uint64]string{}
		t.comments[at] = known
		for _, f := range families {
			if f.name != at.family {
				continue
			}
			m := nfnl.Message{Subsystem: unix.NFNL_SUBSYS_NFTABLES, Type: unix.NFT_MSG_GETRULE, Family: f.number, Put: func(a *nfnl.Attrs) {
				a.String(unix.NFTA_RULE_TABLE, at.table)
				a.String(unix.NFTA_RULE_CHAIN, at.chain)
			}}
			_ = t.table.Dump(m, func(a nfnl.Answer) error { // without it the rule has its handle
				known[nfnl.Uint64(nfnl.Find(a.Attrs, unix.NFTA_RULE_HANDLE))] = commentOf(nfnl.Find(a.Attrs, unix.NFTA_RULE_USERDATA))
				return nil
			})
		}
	}
	return known[handle]
}

// commentOf reads the user data of a rule as nft writes it: type, length, value; 0 is the
// comment.
func commentOf(data []byte) string {
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		if data[0] == 0 {
			return string(bytes.TrimRight(data[2:2+int(data[1])], "\x00"))
		}
		data = data[2+int(data[1]):]
	}
	return ""
}
