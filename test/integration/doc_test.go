// Package integration tests the built plugins on a real kernel, the way
// runtimes call them. Each test has a network and a mount namespace of its
// own, in which /run and /var/lib are empty; it needs root. UPDATE=1 writes
// the expected results anew.
package integration
