package tool

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// program puts a shell script in PATH, alone but for the system's programs.
func program(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	if err := lntest.WriteProgram(filepath.Join(dir, "prog"), []byte("#!/bin/sh\n"+script)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return "prog"
}

func TestRun(t *testing.T) {
	name := program(t, `read line; echo "$1 $line"`)
	if got, err := Run(t.Context(), name, "in\n", "arg"); err != nil || got != "arg in\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := Run(t.Context(), "no-such-program", ""); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("a missing program: %v", err)
	}
}

func TestRunFails(t *testing.T) {
	_, err := Run(t.Context(), program(t, `echo what went wrong >&2; exit 3`), "")
	var failed *Error
	if !errors.As(err, &failed) || failed.Code != 3 || !strings.Contains(failed.Error(), "what went wrong") {
		t.Errorf("got %v", err)
	}
}

// A program that never ends, and one that leaves its output to a child. The child ends
// with the test, which removes the script.
func TestRunIsBounded(t *testing.T) {
	for _, script := range []string{"exec sleep 1000", `while [ -e "$0" ]; do sleep 0.1; done & exec sleep 1000`} {
		if _, err := run(t.Context(), 50*time.Millisecond, program(t, script), ""); !errors.Is(err, ErrTimeout) {
			t.Errorf("%s: %v, want ErrTimeout", script, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := run(ctx, time.Hour, program(t, "exec sleep 1000"), ""); !errors.Is(err, context.Canceled) {
		t.Errorf("after its context ended: %v", err)
	}
}

// Run reads a program's output with a bound, and the program can still end by itself.
func TestRunReadsSoMuch(t *testing.T) {
	_, err := Run(t.Context(), program(t, `i=0; while [ $i -lt 2000 ]; do echo "0123456789012345678901234567890123456789012345678901234567890123456789" >&2; i=$((i+1)); done; exit 1`), "")
	var failed *Error
	if !errors.As(err, &failed) || failed.Code != 1 || len(failed.Says) != maxErrors {
		t.Errorf("got %d bytes of what it says, want %d: %.80v", len(failed.Says), maxErrors, err)
	}
	l := limited{most: 4}
	for _, s := range []string{"ab", "cdef", "g"} {
		if n, err := l.Write([]byte(s)); n != len(s) || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
	}
	if l.String() != "abcd" || !l.more {
		t.Errorf("kept %q, more %v", l.String(), l.more)
	}
}
