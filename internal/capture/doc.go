// Package capture brings DNS queries of containers to a function of ours, and
// leaves those that it has no answer for on their way.
//
// A query over UDP waits in an NFQUEUE of the kernel. If there is an answer, the
// query is dropped and the answer goes to the container, from the address that was
// asked; if not, the query goes on as it came: from the container's address and port,
// by the same routes, rules and translations as without us. Nothing is ever sent to
// another server in the host's name, so a container reaches no server by us that it
// could not reach alone. Port 53 stays free for others.
//
// TPROXY was tried, and dropped. It needs a mark, a policy route, and a socket for
// each server; it does not work while br_netfilter hands bridged packets to the rules
// of IP, nor with src_valid_mark; and the foreign queries have to be sent again
// by the host, which is to undo by hand what `internal` and all other rules forbid.
// A redirect is no better for UDP: its conntrack entry outlives the agent, so a client
// that asks again from the same port would get no answer though the rule is gone.
//
// A query over TCP is known only once there is a connection, so these are redirected
// to a listener. A query without an answer there is sent by a connection that is opened
// in the container's own network namespace, for the same reason.
//
// A rule counts only while the set alive has the protocol. Its elements time out, and
// Capture renews them: if the process is stopped or hangs, queries pass untouched
// after aliveFor. The table belongs to the socket that made it (NFT_TABLE_F_OWNER,
// Linux 5.12), so it goes with the process, however that ends.
package capture
