// Package netlink speaks rtnetlink: one type for the sockets of a namespace, for
// many goroutines at once; one form of a message; one place that repeats an
// interrupted dump; and links, addresses and routes as the kernel has them. It also
// receives events, of any family of netlink.
package netlink
