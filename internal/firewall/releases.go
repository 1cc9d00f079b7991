package firewall

import "golang.org/x/sys/unix"

// releases are the names of what inetTable, bridgeTable and conditionTable say,
// by family: a hash of the messages that write them. To compute it would cost
// each ADD some 80 µs. After a change of any rule, set or chain
// TestReleases says what is right here.
var releases = map[uint8]string{
	unix.NFPROTO_INET:   "d013d91f0599cd75",
	unix.NFPROTO_BRIDGE: "67b3d292e00c6378",
	unix.NFPROTO_IPV4:   "5fab366990054561",
	unix.NFPROTO_IPV6:   "becde8f61d646d2e",
}
