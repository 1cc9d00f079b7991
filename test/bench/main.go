// Command bench times the plugins of this module beside the reference plugins
// of the CNI project, call by call in turn, in one run on one machine. It
// works in network and mount namespaces of its own and needs root.
//
//	bench [-n rounds] [-docs dir] [part...]
//
// Without parts it runs all of them and then writes performance.md, and the
// plot beside it, to -docs. The directories of the binaries come in BIN (ours)
// and TOOLS (theirs); `make bench` sets both.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/test/bench/apart"
)

// parts are what can be run alone, in the order of the document.
var parts = []struct {
	name string
	run  func(r *report, rounds int) error
}{
	{"attach", attachments},
	{"gc", collections},
	{"storm", storms},
	{"ports", ports},
	{"addresses", addresses},
	{"process", processes},
	{"packets", packets},
	{"overlay", overlays},
	{"agent", agents},
	{"wireguard", wireguards},
	{"names", names},
	{"services", services},
	{"policy", policies},
	{"library", beside},
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	rounds := flags.Int("n", 30, "how often each call is timed, more or less")
	docs := flags.String("docs", "", "where to write performance.md when all parts have run")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if os.Getenv("BENCH_INSIDE") == "" {
		return apart.Run("bench", "BENCH_INSIDE", stdout, stderr)
	}
	if err := bench(stdout, *rounds, *docs, flags.Args()); err != nil {
		_, _ = fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

func bench(stdout io.Writer, rounds int, docs string, only []string) error {
	if err := checkParts(only); err != nil {
		return err
	}
	if err := prepare(); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil { // of the new process namespace
		return err
	}
	r, on, began := &report{out: stdout}, machine(rounds), time.Now()
	for _, p := range parts {
		if !chosen(p.name, only) {
			continue
		}
		start := time.Now()
		if err := p.run(r, rounds); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		_, _ = fmt.Fprintf(stdout, "\n(%s took %s)\n", p.name, time.Since(start).Round(time.Second))
	}
	took := time.Since(began).Round(time.Second)
	on.row("took", took.String())
	_, _ = fmt.Fprintf(stdout, "\n## Targets\n\n%s\n%s", r.targetTable(), on)
	if docs == "" || len(only) > 0 {
		return nil
	}
	return r.write(docs, on)
}

func checkParts(only []string) error {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	for _, name := range only {
		if !chosen(name, names) {
			return fmt.Errorf("no part %q: there are %s", name, strings.Join(names, ", "))
		}
	}
	return nil
}

// chosen says whether a name is on a list; nothing on it means all.
func chosen(name string, only []string) bool {
	for _, o := range only {
		if o == name {
			return true
		}
	}
	return len(only) == 0
}

// tool is where a program of this module lies: beside this one.
func tool(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(self), name)
}
