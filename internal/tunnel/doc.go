// Package tunnel applies, verifies and removes VXLAN devices with the routes,
// neighbours and forwarding entries that lead to other hosts, watches for changes
// of them, and sends echo requests to the other hosts.
package tunnel
