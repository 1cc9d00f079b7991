package ruleset

import "golang.org/x/sys/unix"

// Releases are the names of what InetTable, BridgeTable and ConditionTable say,
// by family: a hash of the messages that write them. To compute it costs
// 4 % of an ADD's CPU time (BenchmarkRelease). After a change of any rule, set or chain
// TestReleases says what is right here.
var Releases = [...]string{
	unix.NFPROTO_INET:   "a7354b267a3b002a",
	unix.NFPROTO_BRIDGE: "67b3d292e00c6378",
	unix.NFPROTO_IPV4:   "b49ca8e9c7c20d4a",
	unix.NFPROTO_IPV6:   "661ceddb42c4c4e9",
}

// Contents are the hashes of what the rules of these tables say, by family (see
// table.content). TestReleases says what is right here, too.
var Contents = [...]uint64{
	unix.NFPROTO_INET:   0x65c710468b8ac58e,
	unix.NFPROTO_BRIDGE: 0x86d6d40f2b3f3cd4,
	unix.NFPROTO_IPV4:   0x2eaa42678ba94fc2,
	unix.NFPROTO_IPV6:   0x1d7482354d2ec7f6,
}

// A table tells which release of this package wrote it by the names of two
// chains without rules. "written-<hash>" comes in the transaction that writes
// the rules; "release-<hash>" once all elements are there, too (see Complete).
// User data of the table would do as well, but needs Linux 5.10, and cannot be
// changed afterwards.
const (
	releasePrefix = "release-"
	writtenPrefix = "written-"
)

// Release is the chain that says that t is complete.
func (t Table) Release() Chain { return Chain{Name: releasePrefix + Releases[t.Family]} }

// Written is the chain that says which release wrote the rules of t.
func (t Table) Written() Chain { return Chain{Name: writtenPrefix + Releases[t.Family]} }
