package firewall

import "golang.org/x/sys/unix"

// releases are the names of what inetTable, bridgeTable and conditionTable say,
// by family: a hash of the messages that write them. To compute it costs
// 4 % of an ADD's CPU time (BenchmarkRelease). After a change of any rule, set or chain
// TestReleases says what is right here.
var releases = map[uint8]string{
	unix.NFPROTO_INET:   "aae077c70669a10f",
	unix.NFPROTO_BRIDGE: "67b3d292e00c6378",
	unix.NFPROTO_IPV4:   "5fab366990054561",
	unix.NFPROTO_IPV6:   "becde8f61d646d2e",
}

// contents are the hashes of what the rules of these tables say, by family (see
// table.content). TestReleases says what is right here, too.
var contents = map[uint8]uint64{
	unix.NFPROTO_INET:   0x2d582f7997c98a32,
	unix.NFPROTO_BRIDGE: 0x86d6d40f2b3f3cd4,
	unix.NFPROTO_IPV4:   0x5b54ed3f24418054,
	unix.NFPROTO_IPV6:   0x4f9b269503daef24,
}
