// Package address gives endpoints their addresses: the interface that every IPAM has, the
// pool of this module, pools whose subnets are chosen on this host, and the leases that
// living containers get back when a pool has lost them.
package address
