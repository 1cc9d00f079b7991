// Package kill holds that a plugin may die, or a system call of it fail, at any
// point: each point of ADD and of DEL is tried by ptrace(2) on the real
// binaries, and the host is compared with what it was before. LIBNET_KILL=full
// tries every point and LIBNET_KILL=5 every fifth; else it is a few.
package kill
