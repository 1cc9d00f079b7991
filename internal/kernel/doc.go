// Package kernel joins all that talks to the kernel about the network, but the
// firewall, in one Handle: the host, its links and its tunnels.
package kernel
