// Package responder answers DNS queries of containers for names of containers on this host in
// the kernel: a tc program on the host's end of each veth looks names up in maps, which stay
// when the process has ended. No daemon is needed.
//
// Maps and program are pinned in a bpffs, in a directory of their own for each state directory
// and network namespace. Its flock(2) lock is held by a call that changes the maps: an alias
// that several containers have is one value. The owner of each address in a value, of each link
// and of each container's network is a hash of the attachment, so that DEL removes its own
// only, and what a killed process left can be told from the rest.
//
// It needs Linux 5.10 with BPF, a bpffs, and clsact.
package responder
