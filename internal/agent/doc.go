// Package agent keeps the overlay networks of a host: it shares their hosts by a registry, leases this one's blocks, and has the kernel and the node files follow.
//
// Three loops go on beside each other, and each looks at the whole when it is
// hinted that something changed: one follows the registry, one takes blocks
// there, and one brings the kernel to what the registry says. The last one never
// waits for the registry.
package agent
