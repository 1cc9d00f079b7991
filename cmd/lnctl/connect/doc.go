// Package connect has the commands of lnctl that add a running container to a network, and
// take it out again.
package connect
