package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"golang.org/x/sys/unix"
)

// processes counts what a call costs beside time, and times those that change nothing.
func processes(r *report, n int) error {
	chains, err := newChains(fullContestants)
	if err != nil {
		return err
	}
	r.print("\n## Processes, memory, sizes\n")
	for _, part := range []func(*report, []*chain, int) error{costs, cold, small} {
		if err := part(r, chains, n); err != nil {
			return err
		}
	}
	if err := sizes(r); err != nil {
		return err
	}
	var worlds []*world
	for _, c := range chains {
		worlds = append(worlds, c.w)
	}
	return closeAll(worlds)
}

// wrapped runs each plugin by another program.
type wrapped struct {
	*invoke.DefaultExec
	prefix []string
	report *bytes.Buffer // what the program writes to file descriptor 3
}

// ExecPlugin runs one.
func (w *wrapped) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	fd, err := unix.MemfdCreate("report", 0)
	if err != nil {
		return nil, err
	}
	report := os.NewFile(uintptr(fd), "report")
	defer func() { _ = report.Close() }()
	args := append(append([]string{}, w.prefix...), path)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Env, cmd.ExtraFiles = bytes.NewReader(stdin), env, []*os.File{report}
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", path, err, out)
	}
	_, err = io.Copy(w.report, io.NewSectionReader(report, 0, 1<<30))
	return out, err
}

// cost is what one call took beside time.
type cost struct {
	processes, syscalls int
	cpu                 time.Duration
	peakKiB             int
}

// costs counts for ADD and DEL.
func costs(r *report, chains []*chain, n int) error {
	t := &table{columns: []string{"", "processes", "system calls", "CPU ms, p50", "peak MiB"}}
	var peak int
	n = max(3, n/4)
	nothing, err := measureCost(n, func(prefix []string) (string, error) { return emptyUnder(chains[0].w, prefix) })
	if err != nil {
		return err
	}
	t.row(append([]string{"an empty Go program"}, nothing.cells()...)...)
	for _, c := range chains {
		if err := c.cycle(); err != nil {
			return err
		}
		for _, verb := range []string{"ADD", "DEL"} {
			cost, err := measureCost(n, func(prefix []string) (string, error) { return c.under(verb, prefix) })
			if err != nil {
				return err
			}
			t.row(append([]string{c.name + ", " + verb}, cost.cells()...)...)
			if c.name == nameOurs && verb == "ADD" {
				peak = cost.peakKiB
			}
		}
	}
	t.print(r, "what a full call takes (processes and system calls by strace -f; peak of the largest process)")
	r.limit("peak memory of an ADD", "≤ 16 MB", float64(peak), 16e6/1024, mib(peak)+" MiB")
	return nil
}

func mib(kib int) string { return fmt.Sprintf("%.1f", float64(kib)/1024) }

// orDash is a dash for 0: strace is not there.
func orDash(n int) string {
	if n == 0 {
		return "–"
	}
	return fmt.Sprint(n)
}

func (c cost) cells() []string {
	return []string{orDash(c.processes), orDash(c.syscalls), milliseconds(c.cpu), mib(c.peakKiB)}
}

// measureCost takes the median of CPU time, and the most memory of all. It
// calls run with the program that plugins are to be run by.
func measureCost(n int, run func(prefix []string) (string, error)) (cost, error) {
	var out cost
	var cpu durations
	for range n {
		report, err := run([]string{tool("launch")})
		if err != nil {
			return out, err
		}
		var sum time.Duration
		for line := range strings.Lines(report) {
			var micros time.Duration
			var kib int
			if _, err := fmt.Sscan(line, &micros, &kib); err != nil {
				return out, err
			}
			sum += micros * time.Microsecond
			out.peakKiB = max(out.peakKiB, kib)
		}
		cpu = append(cpu, sum)
	}
	out.cpu = cpu.percentile(50)
	strace, err := exec.LookPath("strace")
	if err != nil {
		return out, nil
	}
	trace, err := run([]string{strace, "-f", "-qq", "-o", "/proc/self/fd/3"})
	for line := range strings.Lines(trace) {
		call := !strings.Contains(line, "resumed>") && strings.Contains(line, "(")
		if call {
			out.syscalls++
		}
		if strings.Contains(line, "execve(") && !strings.Contains(line, "ENOENT") {
			out.processes++
		}
	}
	return out, err
}

// emptyUnder runs the program that does nothing by another.
func emptyUnder(w *world, prefix []string) (string, error) {
	var report bytes.Buffer
	err := w.do(func() error {
		_, err := (&wrapped{execer(), prefix, &report}).ExecPlugin(context.Background(), tool("empty"), nil, os.Environ())
		return err
	})
	return report.String(), err
}

// under runs one verb by a program and undoes or prepares it without.
func (c *chain) under(verb string, prefix []string) (string, error) {
	var report bytes.Buffer
	err := c.w.do(func() error {
		with := *c
		rt := c.timed().runtime()
		w := &wrapped{execer(), prefix, &report}
		with.cni = newCNI(w)
		one, other := &with, c
		if verb == "DEL" {
			one, other = c, &with
		}
		return errors.Join(one.run("ADD", rt), other.run("DEL", rt))
	})
	return report.String(), err
}
