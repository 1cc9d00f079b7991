package nftrace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// TableName is the name of the tables, of the families inet, bridge and netdev, that mark packets.
const TableName = "libnet-trace"

// From linux/netfilter/nf_tables.h and nfnetlink.h.
const (
	tableOwner    = 2 // NFT_TABLE_F_OWNER
	groupNFTrace  = 9 // NFNLGRP_NFTRACE
	msgTrace      = unix.NFT_MSG_TRACE
	beforeOthers  = -400 // NF_IP_PRI_CONNTRACK_DEFRAG: raw is -300
	beforeAll     = -1 << 30
	behindAll     = 1 << 30 // but confirmation by conntrack
	policyAccept  = 1
	mostPerOutput = 1000
	hookDevices   = 4 // NFTA_HOOK_DEVS
	deviceName    = 1 // NFTA_DEVICE_NAME
)

// Match says which packets are followed.
type Match struct {
	// Source is whose packets; the zero Addr: any.
	Source netip.Addr
	Dest   netip.Addr
	// Protocol is IPPROTO_*; 0: any. Port is that of the destination; 0: any.
	Protocol uint8
	Port     uint16
	// SourcePort is that of the sender, Ident the identifier of an echo; 0: any.
	SourcePort, Ident uint16
	// Data is what a datagram or an echo begins with; empty: any. First asks for the first packet of
	// a connection of TCP.
	Data  string
	First bool
	// Devices are interfaces at which packets are marked as they come in, before a bridge has them.
	// They are marked, too, at those where another program judges them so early.
	Devices []string
}

func (m Match) exprs() []expr.Any {
	ether, at, size := uint16(unix.ETH_P_IP), uint32(12), uint32(4)
	if m.Dest.Is6() {
		ether, at, size = unix.ETH_P_IPV6, 8, 16
	}
	equal := func(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }
	payload := func(base expr.PayloadBase, offset, size uint32) expr.Any {
		return &expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: size}
	}
	both := func(number uint16) []byte { return binary.BigEndian.AppendUint16(nil, number) }
	all := []expr.Any{&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1}, equal(both(ether))}
	if m.Source.IsValid() {
		all = append(all, payload(expr.PayloadBaseNetworkHeader, at, size), equal(m.Source.AsSlice()))
	}
	all = append(all, payload(expr.PayloadBaseNetworkHeader, at+size, size), equal(m.Dest.AsSlice()))
	if m.Protocol != 0 {
		all = append(all, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{m.Protocol}))
	}
	for offset, number := range []uint16{0: m.SourcePort, 2: m.Port, 4: m.Ident} { // of the header of TCP, UDP and ICMP
		if number != 0 {
			all = append(all, payload(expr.PayloadBaseTransportHeader, uint32(offset), 2), equal(both(number)))
		}
	}
	if m.Data != "" {
		all = append(all, payload(expr.PayloadBaseTransportHeader, headerSize, uint32(len(m.Data))), equal([]byte(m.Data)))
	}
	if m.First {
		const flags, syn = 13, 2 // of the header of TCP
		all = append(all, payload(expr.PayloadBaseTransportHeader, flags, 1), equal([]byte{syn}))
	}
	return append(all,
		&expr.Immediate{Register: 1, Data: []byte{1}},
		&expr.Meta{Key: expr.MetaKey(unix.NFT_META_NFTRACE), SourceRegister: true, Register: 1})
}

// headerSize is that of a datagram and of an echo.
const headerSize = 8

// mark makes the tables: the first with c, each other with a socket of its own, as an error leaves
// answers in it that are of no use. They go with the sockets. A kernel without the families bridge and
// netdev does without them.
func mark(c *nfnl.Conn, m Match, devices []string) (more []*nfnl.Conn, err error) {
	tables := tablesFor(devices)
	if err := write(c, tables[0], m); err != nil {
		return nil, err
	}
	for _, t := range tables[1:] {
		c, err := nfnl.Open()
		if err != nil {
			return more, err
		}
		_ = write(c, t, m)
		more = append(more, c)
	}
	return more, nil
}

// chain is one of a table that marks packets, or only shows that they come there.
type chain struct {
	name     string
	hook     uint32
	priority int32
	marks    bool
	devices  []string
}

// table is one of ours.
type table struct {
	family uint8
	chains []chain
}

func tablesFor(devices []string) []table {
	all := []table{
		{unix.NFPROTO_INET, []chain{
			{"prerouting", unix.NF_INET_PRE_ROUTING, beforeOthers, true, nil},
			{"translated", unix.NF_INET_PRE_ROUTING, behindAll, false, nil},
			{"input", unix.NF_INET_LOCAL_IN, beforeAll, false, nil},
			{"received", unix.NF_INET_LOCAL_IN, behindAll, false, nil},
			{"forward", unix.NF_INET_FORWARD, beforeAll, false, nil},
			{"forwarded", unix.NF_INET_FORWARD, behindAll, false, nil},
			{"output", unix.NF_INET_LOCAL_OUT, beforeOthers, true, nil},
			{"sent", unix.NF_INET_LOCAL_OUT, behindAll, false, nil},
			{"postrouting", unix.NF_INET_POST_ROUTING, behindAll, false, nil},
		}},
		{unix.NFPROTO_BRIDGE, []chain{
			{"prerouting", unix.NF_INET_PRE_ROUTING, beforeAll, true, nil},
			{"forward", unix.NF_INET_FORWARD, behindAll, false, nil},
			{"postrouting", unix.NF_INET_POST_ROUTING, behindAll, false, nil},
		}},
	}
	if len(devices) > 0 {
		const ingress = 0 // NF_NETDEV_INGRESS
		all = append(all, table{unix.NFPROTO_NETDEV, []chain{{"ingress", ingress, beforeAll, true, devices}}})
	}
	return all
}

// write makes one table.
func write(c *nfnl.Conn, t table, m Match) error {
	var encoded [][]byte
	for _, e := range m.exprs() {
		one, err := expr.Marshal(t.family, e)
		if err != nil {
			return err
		}
		encoded = append(encoded, one)
	}
	var b nfnl.Buffer
	add := func(typ uint8, flags uint16, put func(*nfnl.Attrs)) {
		b.Add(nfnl.Message{Subsystem: unix.NFNL_SUBSYS_NFTABLES, Type: typ, Flags: flags, Family: t.family, Put: put})
		b.AckLast()
	}
	edge := func(typ uint8) {
		b.Add(nfnl.Message{Type: typ, Edge: true, Resource: unix.NFNL_SUBSYS_NFTABLES})
	}
	edge(unix.NFNL_MSG_BATCH_BEGIN)
	add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_TABLE_NAME, TableName)
		a.Uint32(unix.NFTA_TABLE_FLAGS, tableOwner)
	})
	for _, ch := range t.chains {
		add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, ch.put)
		if !ch.marks {
			continue
		}
		add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, func(a *nfnl.Attrs) {
			a.String(unix.NFTA_RULE_TABLE, TableName)
			a.String(unix.NFTA_RULE_CHAIN, ch.name)
			a.Nest(unix.NFTA_RULE_EXPRESSIONS, func(a *nfnl.Attrs) {
				for _, one := range encoded {
					a.Nest(unix.NFTA_LIST_ELEM, func(a *nfnl.Attrs) { *a = append(*a, one...) })
				}
			})
		})
	}
	edge(unix.NFNL_MSG_BATCH_END)
	if err := c.Send(&b); err != nil {
		return err
	}
	left := b.Len() - 2 // answers, unless the kernel gives up before
	return c.Receive(func(_ nfnl.Answer, isErr bool, errno unix.Errno) (bool, error) {
		if isErr && errno != 0 {
			return true, refusal(errno)
		}
		left--
		return left == 0, nil
	})
}

// put writes the chain into a message.
func (ch chain) put(a *nfnl.Attrs) {
	a.String(unix.NFTA_CHAIN_TABLE, TableName)
	a.String(unix.NFTA_CHAIN_NAME, ch.name)
	a.Nest(unix.NFTA_CHAIN_HOOK, func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_HOOK_HOOKNUM, ch.hook)
		a.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(ch.priority))
		if len(ch.devices) > 0 {
			a.Nest(hookDevices, func(a *nfnl.Attrs) {
				for _, d := range ch.devices {
					a.String(deviceName, d)
				}
			})
		}
	})
	a.Uint32(unix.NFTA_CHAIN_POLICY, policyAccept)
	a.String(unix.NFTA_CHAIN_TYPE, "filter")
}

func refusal(errno unix.Errno) error {
	switch {
	case errors.Is(errno, unix.EEXIST), errors.Is(errno, unix.EPERM):
		return fmt.Errorf("table inet %s: another lnctl trace is under way, or this process is not root: %w", TableName, errno)
	case errors.Is(errno, unix.EINVAL), errors.Is(errno, unix.EOPNOTSUPP):
		return fmt.Errorf("table inet %s: needs Linux 5.12 or later: %w", TableName, errno)
	}
	return fmt.Errorf("table inet %s: %w", TableName, errno)
}
