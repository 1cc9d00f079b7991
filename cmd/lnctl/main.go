// Command lnctl shows an operator what libnet made on this host, finds what is
// wrong with it, and mends it. It needs no daemon, and root.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// version is set by the linker (see the Makefile).
var version = "v0.0.0-dev"

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// The exit codes.
const (
	exitOK      = 0
	exitProblem = 1 // something failed, or doctor found something
	exitUsage   = 2
)

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.Version = version // of --version
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return exitOK
	}
	_, _ = fmt.Fprintln(stderr, "lnctl:", err)
	if errors.As(err, new(usageError)) {
		return exitUsage
	}
	return exitProblem
}
