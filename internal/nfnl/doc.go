// Package nfnl speaks nfnetlink, the netlink family of netfilter: sockets,
// messages and attributes, and nothing about what they mean.
//
// It is there for what libraries lack. google/nftables has no keyed get of a set
// element and no generation ID of a transaction, on which "one owner per port"
// rests; mdlayher/netlink has no messages of nf_tables. Speed is no reason: to
// link google/nftables as well makes no difference to an ADD that can be measured.
package nfnl
