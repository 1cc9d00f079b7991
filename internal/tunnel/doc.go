// Package tunnel applies, verifies and removes the devices that lead to other hosts: VXLAN
// with its routes, neighbours and forwarding entries, or WireGuard with its routes and peers.
// It watches for changes of them, and sends echo requests to the other hosts.
package tunnel
