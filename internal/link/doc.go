// Package link applies, verifies, removes and lists bridges and attachments: a veth
// pair of which one end is a port of a bridge, and the other a container's interface
// with its addresses and routes.
package link
