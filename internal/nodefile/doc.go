// Package nodefile is what ln-agent tells the plugins of a network that spans hosts: a file
// with this host's blocks and the other hosts.
package nodefile
