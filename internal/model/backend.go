package model

// Backend is what holds the rules of a network.
type Backend string

// The backends.
const (
	// BackendAuto is BackendNFTables, or BackendIPTables where the kernel has no
	// nf_tables.
	BackendAuto     Backend = "auto"
	BackendNFTables Backend = "nftables"
	BackendIPTables Backend = "iptables"
)
