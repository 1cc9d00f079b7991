package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"
)

// version is set by the linker (see the Makefile).
var version = "v0.0.0-dev"

// The exit codes.
const (
	exitOK      = 0
	exitProblem = 1
	exitUsage   = 2
)

func run(args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := rootCommand(getenv)
	root.Version = version // of --version
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	_, _ = fmt.Fprintln(stderr, "ln-agent:", err)
	if errors.As(err, new(usageError)) {
		return exitUsage
	}
	return exitProblem
}
