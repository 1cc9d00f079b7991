package capture

import (
	"encoding/binary"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	// rateMemory is how long the rate of a container that is silent is kept.
	rateMemory = 10 * time.Second
	// rateSources is for how many containers.
	rateSources = 65536
	// burst is how many seconds of the limit a container may use at once.
	burst = 2
)

func joined(all ...[]expr.Any) (exprs []expr.Any) {
	for _, a := range all {
		exprs = append(exprs, a...)
	}
	return exprs
}

// destination is "meta l4proto <protocol> th dport <port>".
func destination(protocol byte, port uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: be16(port)},
	}
}

// alive is "meta l4proto @alive".
func alive() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Lookup{SourceRegister: 1, SetName: aliveSet.name}}
}

// inGroup is "meta iifgroup <group>".
func inGroup(group uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFGROUP, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, group)}}
}

// begins is "tcp flags & (syn|ack) == syn".
func begins() []expr.Any {
	const syn, synAck = 0x02, 0x12
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{synAck}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{syn}},
	}
}

func jump(to string) []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: to}} }

func family(nfproto byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{nfproto}}}
}

// source is "ip saddr @set".
func (f addressFamily) source(in set) []expr.Any {
	return []expr.Any{f.address(), &expr.Lookup{SourceRegister: 1, SetName: in.name}}
}

func (f addressFamily) address() expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset, Len: f.len}
}

// over is "update @rates { ip saddr limit rate over <limit>/second } accept".
func (f addressFamily) over(limit int) []expr.Any {
	rate := &expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(limit), Over: true, Unit: expr.LimitTimeSecond, Burst: uint32(limit * burst)}
	return joined([]expr.Any{
		f.address(),
		&expr.Dynset{SrcRegKey: 1, SetName: f.rates.name, Operation: uint32(unix.NFT_DYNSET_OP_UPDATE), Exprs: []expr.Any{rate}},
	}, verdict(expr.VerdictAccept))
}

// notFrom is "th sport != <first>-<last>".
func notFrom(ports [2]uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
		&expr.Range{Op: expr.CmpOpNeq, Register: 1, FromData: be16(ports[0]), ToData: be16(ports[1])},
	}
}

func redirect(port uint16) []expr.Any {
	return []expr.Any{&expr.Immediate{Register: 1, Data: be16(port)}, &expr.Redir{RegisterProtoMin: 1, RegisterProtoMax: 1, Flags: unix.NF_NAT_RANGE_PROTO_SPECIFIED}}
}

// notTranslated is "ct status & dnat == 0".
func notTranslated() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binary.NativeEndian.AppendUint32(nil, statusDNAT), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
	}
}

// statusDNAT is IPS_DST_NAT (linux/netfilter/nf_conntrack_common.h).
const statusDNAT = 1 << 5

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }
