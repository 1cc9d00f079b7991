package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/libnet-cni/libnet/internal/console"
)

// version is set by the linker (see the Makefile).
var version = "v0.0.0-dev"

// The exit codes.
const (
	exitOK      = 0
	exitProblem = 1 // something failed, or doctor found something
	exitUsage   = 2
	exitRoot    = 3 // the command needs root
)

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root, s := rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	addCompletion(root)
	cmd, err := root.ExecuteContextC(context.Background())
	if err == nil {
		return exitOK
	}
	code := exitCode(err)
	if code == exitUsage { // it may not be parsed
		s.Guess(args)
	}
	if code == exitRoot {
		err = fmt.Errorf("%s %w", cmd.CommandPath(), err)
	}
	s.PrintError(stderr, root.Name(), err, code)
	return code
}

func exitCode(err error) int {
	switch {
	case errors.Is(err, errNeedsRoot):
		return exitRoot
	case errors.As(err, new(usageError)), errors.As(err, new(*console.UsageError)):
		return exitUsage
	}
	return exitProblem
}
