// Package model has the types that all parts of libnet share: the identity of an
// attachment, the configuration of a network and of published ports, addresses and
// routes, and the errors that callers tell apart. It checks what can be checked
// without looking at the host, and changes nothing.
package model
