package conntrack

// Messages and attributes of linux/netfilter/nfnetlink_conntrack.h.
const (
	msgGet    = 1
	msgDelete = 2

	ctaTupleOrig  = 1
	ctaTupleReply = 2
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
