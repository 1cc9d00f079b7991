// Package overlay computes what a network that spans hosts is on each of them: from its hosts and their blocks to a kernel.Tunnel. It is pure.
package overlay
