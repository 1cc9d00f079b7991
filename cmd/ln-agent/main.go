//go:build !manual

// Command ln-agent keeps the overlay networks of a host: it shares their hosts
// by etcd and programs the ways to them. README.md says how it is run.
package main

import "os"

func main() { os.Exit(run(os.Args[1:], os.Getenv, os.Stdout, os.Stderr)) }
