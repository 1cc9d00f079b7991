// Package nft keeps the packet rules of networks and endpoints in nftables tables of our
// own, which package ruleset describes. It is the only package that changes nf_tables, by
// netlink, and is to nftables what package iptables is to iptables.
package nft
