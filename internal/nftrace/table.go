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

// TableName is the table, of the family inet, that marks packets.
const TableName = "libnet-trace"

// From linux/netfilter/nf_tables.h and nfnetlink.h.
const (
	tableOwner    = 2 // NFT_TABLE_F_OWNER
	groupNFTrace  = 9 // NFNLGRP_NFTRACE
	msgTrace      = unix.NFT_MSG_TRACE
	beforeOthers  = -400 // NF_IP_PRI_CONNTRACK_DEFRAG: raw is -300
	policyAccept  = 1
	mostPerOutput = 1000
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
}

func (m Match) exprs() []expr.Any {
	proto, at, size := byte(unix.NFPROTO_IPV4), uint32(12), uint32(4)
	if m.Dest.Is6() {
		proto, at, size = unix.NFPROTO_IPV6, 8, 16
	}
	equal := func(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }
	payload := func(base expr.PayloadBase, offset, size uint32) expr.Any {
		return &expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: size}
	}
	all := []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equal([]byte{proto})}
	if m.Source.IsValid() {
		all = append(all, payload(expr.PayloadBaseNetworkHeader, at, size), equal(m.Source.AsSlice()))
	}
	all = append(all, payload(expr.PayloadBaseNetworkHeader, at+size, size), equal(m.Dest.AsSlice()))
	if m.Protocol != 0 {
		all = append(all, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{m.Protocol}))
	}
	for offset, number := range []uint16{0: m.SourcePort, 2: m.Port, 4: m.Ident} { // of the header of TCP, UDP and ICMP
		if number != 0 {
			all = append(all, payload(expr.PayloadBaseTransportHeader, uint32(offset), 2), equal(binary.BigEndian.AppendUint16(nil, number)))
		}
	}
	return append(all,
		&expr.Immediate{Register: 1, Data: []byte{1}},
		&expr.Meta{Key: expr.MetaKey(unix.NFT_META_NFTRACE), SourceRegister: true, Register: 1})
}

// mark makes the table. It goes with c.
func mark(c *nfnl.Conn, m Match) error {
	var encoded [][]byte
	for _, e := range m.exprs() {
		one, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil {
			return err
		}
		encoded = append(encoded, one)
	}
	var b nfnl.Buffer
	add := func(typ uint8, flags uint16, put func(*nfnl.Attrs)) {
		b.Add(nfnl.Message{Subsystem: unix.NFNL_SUBSYS_NFTABLES, Type: typ, Flags: flags, Family: unix.NFPROTO_INET, Put: put})
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
	for name, hook := range map[string]uint32{"prerouting": unix.NF_INET_PRE_ROUTING, "output": unix.NF_INET_LOCAL_OUT} {
		add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, func(a *nfnl.Attrs) {
			a.String(unix.NFTA_CHAIN_TABLE, TableName)
			a.String(unix.NFTA_CHAIN_NAME, name)
			a.Nest(unix.NFTA_CHAIN_HOOK, func(a *nfnl.Attrs) {
				a.Uint32(unix.NFTA_HOOK_HOOKNUM, hook)
				a.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(1<<32+beforeOthers))
			})
			a.Uint32(unix.NFTA_CHAIN_POLICY, policyAccept)
			a.String(unix.NFTA_CHAIN_TYPE, "filter")
		})
		add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, func(a *nfnl.Attrs) {
			a.String(unix.NFTA_RULE_TABLE, TableName)
			a.String(unix.NFTA_RULE_CHAIN, name)
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

func refusal(errno unix.Errno) error {
	switch {
	case errors.Is(errno, unix.EEXIST), errors.Is(errno, unix.EPERM):
		return fmt.Errorf("table inet %s: another lnctl trace is under way, or this process is not root: %w", TableName, errno)
	case errors.Is(errno, unix.EINVAL), errors.Is(errno, unix.EOPNOTSUPP):
		return fmt.Errorf("table inet %s: needs Linux 5.12 or later: %w", TableName, errno)
	}
	return fmt.Errorf("table inet %s: %w", TableName, errno)
}
