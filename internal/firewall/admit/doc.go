// Package admit is the part of NetworkPolicies in the kernel: two nftables tables, inet and bridge
// libnet-policy, whose rules are constant. Pods, peers and what they may use are elements, so that a
// packet costs the same however many there are.
//
// Every packet of an isolated pod is judged, not only the first of a connection. Conntrack says which
// end began it: an answer is judged as what it answers. So a change of policies counts for
// connections that are there.
//
// The bridge table keeps a port of a bridge closed until a pod is known there, and has packets
// between pods of one bridge pass by the host, where the inet table sees them.
package admit
