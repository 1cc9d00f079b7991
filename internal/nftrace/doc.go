// Package nftrace follows a packet through the rules of nf_tables, of all programs. A rule in a
// table of our own marks the packet (meta nftrace), and the kernel then tells of each rule
// that judges it. The table belongs to the socket that made it (NFT_TABLE_F_OWNER, Linux
// 5.12), so it goes with the process, however that ends. Rules of iptables-legacy are not told.
package nftrace
