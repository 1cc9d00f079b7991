// Package nfnl speaks nfnetlink, the netlink family of netfilter: sockets,
// messages and attributes, and nothing about what they mean.
//
// Tried and dropped: mdlayher/netlink and google/nftables. Linking them cost a
// process that lives for four milliseconds 0.3 of these before main, and they
// neither send several requests in one system call nor wait for the answer of
// only the last one.
package nfnl
