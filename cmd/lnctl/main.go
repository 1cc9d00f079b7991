//go:build !manual

// Command lnctl shows an operator what libnet made on this host, finds what is
// wrong with it, and mends it. It needs no daemon, and root.
package main

import "os"

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
