// Package host reads and sets what belongs to the host and to no network of ours:
// its routes, addresses, ports, forwarding and sysctls, and what of it is in the
// way of a subnet.
package host
