// Package iptables is package firewall on iptables, for hosts without nf_tables
// and for those where iptables has the say. It runs iptables-save to look and
// iptables-restore to change, so that what it costs does not grow with the
// number of rules it writes.
//
// Tried and dropped: github.com/coreos/go-iptables. It can change one rule at a
// time only, and it compiles a regular expression in every process that links
// it, which most ADDs, that never come here, would pay for.
package iptables
