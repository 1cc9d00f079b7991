package conntrack

// Messages and attributes of linux/netfilter/nfnetlink_conntrack.h.
const (
	msgNew    = 0
	msgGet    = 1
	msgDelete = 2

	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaProtoInfo  = 4
	ctaID         = 12
	ctaZone       = 18
	ctaFilter     = 25

	ctaTupleIP    = 1
	ctaTupleProto = 2

	ctaIPv4Src = 1
	ctaIPv4Dst = 2
	ctaIPv6Src = 3
	ctaIPv6Dst = 4

	ctaProtoNum     = 1
	ctaProtoSrcPort = 2
	ctaProtoDstPort = 3

	ctaProtoInfoTCP      = 1
	ctaProtoInfoTCPState = 1
	ctaProtoInfoTCPFlags = 4 // CTA_PROTOINFO_TCP_FLAGS_ORIGINAL

	ctaFilterOrig  = 1 // CTA_FILTER_ORIG_FLAGS
	ctaFilterReply = 2
)

// Bits of the filter's flags (net/netfilter/nf_internals.h, CTA_FILTER_F_*).
const (
	filterSrc     = 0
	filterDst     = 1
	filterProto   = 3
	filterDstPort = 5
)

// States of TCP, and a flag (linux/netfilter/nf_conntrack_tcp.h, TCP_CONNTRACK_*,
// IP_CT_TCP_FLAG_CLOSE_INIT).
const (
	tcpCloseInit = 4

	tcpSYNSent = 1
	tcpLastACK = 6
	tcpClose   = 8
)
