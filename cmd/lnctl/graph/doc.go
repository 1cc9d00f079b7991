// Package graph is the command "lnctl graph".
package graph
