// Package trace is the command of lnctl that follows a packet.
package trace
