// Package nfnl speaks nfnetlink, the netlink family of netfilter: sockets,
// messages and attributes, and nothing about what they mean.
//
// Tried and dropped: mdlayher/netlink and google/nftables. They neither send
// several requests in one system call nor wait for the answer of only the last
// one, and have neither a keyed get of a set element nor the generation ID of a
// transaction.
package nfnl
