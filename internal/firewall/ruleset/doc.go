// Package ruleset says what our nftables tables are: their sets, chains and rules, which
// never change, and the elements by which networks and endpoints stand in them. It is
// pure: it plans, reads and compares. Package nft brings it into the kernel.
package ruleset
