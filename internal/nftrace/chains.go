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
	hooks  []string
}

// carries says that a table of the family judges packets of a protocol (NFPROTO_*; 0: unknown).
// Tables of several families may have one name.
func (f family) carries(nfproto uint32) bool {
	if f.name == "inet" {
		return nfproto == 0 || nfproto == unix.NFPROTO_IPV4 || nfproto == unix.NFPROTO_IPV6
	}
	return nfproto == 0 || nfproto == uint32(f.number)
}

// hooks are the names of NF_INET_*, and those of the other families.
var (
	hooks       = []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
	deviceHooks = []string{"ingress", "egress"}
	families    = []family{
		{"inet", unix.NFPROTO_INET, hooks}, {"ip", unix.NFPROTO_IPV4, hooks}, {"ip6", unix.NFPROTO_IPV6, hooks},
		{"bridge", unix.NFPROTO_BRIDGE, hooks}, {"netdev", unix.NFPROTO_NETDEV, deviceHooks},
	}
)

// chainsOf lists the chains of all tables with the hook of each, and the interfaces at which some
// judge what comes in.
func chainsOf(c *nfnl.Conn) (all map[chainKey]string, devices []string, err error) {
	all = map[chainKey]string{}
	for _, f := range families {
		m := nfnl.Message{Subsystem: unix.NFNL_SUBSYS_NFTABLES, Type: unix.NFT_MSG_GETCHAIN, Family: f.number}
		err := c.Dump(m, func(a nfnl.Answer) error {
			hook := ""
			if h := nfnl.Find(a.Attrs, unix.NFTA_CHAIN_HOOK); h != nil {
				if n := nfnl.Uint32(nfnl.Find(h, unix.NFTA_HOOK_HOOKNUM)); int(n) < len(f.hooks) {
					hook = f.hooks[n]
				}
				if hook == "ingress" {
					devices = append(devices, devicesOf(h)...)
				}
			}
			all[chainKey{f.name, nfnl.Text(a.Attrs, unix.NFTA_CHAIN_TABLE), nfnl.Text(a.Attrs, unix.NFTA_CHAIN_NAME)}] = hook
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return all, devices, nil
}

// devicesOf are the interfaces of a chain's hook.
func devicesOf(hook []byte) (all []string) {
	if one := nfnl.Text(hook, unix.NFTA_HOOK_DEV); one != "" {
		return []string{one}
	}
	_ = nfnl.Each(nfnl.Find(hook, hookDevices), func(_ uint16, name []byte) error {
		all = append(all, string(bytes.TrimRight(name, "\x00")))
		return nil
	})
	return all
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
			t.table.Enlarge()
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
