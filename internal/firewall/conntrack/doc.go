// Package conntrack forgets connections: it deletes entries of the kernel's
// connection tracking whose ports or containers have another owner now. Rules
// for published ports are asked about a connection's first packet only, so a
// UDP client that goes on sending would go on reaching what was there before.
//
// It speaks ctnetlink over internal/nfnl. Libraries that do (vishvananda/netlink,
// mdlayher/netlink) cost a process that lives for milliseconds more to link
// than to use.
//
// Two ways, measured with a hash table of 262144 buckets, which all network
// namespaces share (Linux 6.18, two cores):
//
//	                         1 entry   50 000 entries
//	delete what matches      0.11 ms   12 ms    kernel 6.11, for each port and, twice, address
//	list, compare, delete       9 ms   93 ms    any kernel, for all of them together
//
// Listing takes the lock of each bucket, whether or not there is anything in
// it; a filter of the kernel (5.8) makes it no shorter than that. Deleting
// skips empty buckets, and returns at once if the namespace has no entries. So
// few ports are deleted the first way; many ports, and what the kernel's filter
// gets wrong (IPv6 addresses, SCTP), and everything on older kernels, the second.
package conntrack
