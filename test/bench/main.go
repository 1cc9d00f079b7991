// Command bench times the plugins of this module beside the reference plugins
// of the CNI project, call by call in turn, in one run on one machine. It
// works in network and mount namespaces of its own and needs root. The
// directories of the binaries come in BIN (ours) and TOOLS (theirs); `make
// bench` sets both.
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// batches is how many batches each chain adds and deletes.
const batches = 3

func main() { os.Exit(run(os.Stdout, os.Stderr)) }

func run(stdout, stderr io.Writer) int {
	if os.Getenv("BENCH_INSIDE") == "" {
		return reexec(stderr)
	}
	if err := bench(stdout); err != nil {
		_, _ = fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

// reexec runs the program again in namespaces of its own.
func reexec(stderr io.Writer) int {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "BENCH_INSIDE=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		_, _ = fmt.Fprintln(stderr, "bench (needs root):", err)
		return 1
	}
	return 0
}

func bench(stdout io.Writer) error {
	if err := prepare(); err != nil {
		return err
	}
	for n, f := range families {
		chains := bare(f, n)
		for i := range batches {
			if err := runBatch(chains, i); err != nil {
				return err
			}
		}
		if err := table(stdout, f.name, chains); err != nil {
			return err
		}
	}
	return addresses(stdout)
}

// table prints each chain's times and, below, how many times faster the first
// is than the second: for all containers, and for the first and last tenth of
// each batch.
func table(stdout io.Writer, family string, chains []*chain) error {
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, part := range []struct {
		name     string
		from, to int
	}{{"0 to 99 present", 0, batch}, {"0 to 9 present", 0, batch / 10}, {"90 to 99 present", batch - batch/10, batch}} {
		_, _ = fmt.Fprintf(w, "bridge and %s, %s\tADD p50\tADD p99\tDEL p50\tDEL p99\t\n", family, part.name)
		var of [2][]durations
		for i, c := range chains {
			of[i] = []durations{c.add.part(part.from, part.to), c.del.part(part.from, part.to)}
			row(w, c.name, of[i])
		}
		ratios(w, "ours / reference", of[0], of[1])
		_, _ = fmt.Fprintln(w)
	}
	return w.Flush()
}

// part returns the times of the containers from to to of each batch.
func (d durations) part(from, to int) durations {
	var out durations
	for i, took := range d {
		if n := i % batch; n >= from && n < to {
			out = append(out, took)
		}
	}
	return out
}

// row prints the times of one plugin, ratios those of a over those of b.
func row(w io.Writer, name string, of []durations) {
	_, _ = fmt.Fprintf(w, "%s\t", name)
	for _, d := range of {
		_, _ = fmt.Fprintf(w, "%s\t%s\t", d.ms(50), d.ms(99))
	}
	_, _ = fmt.Fprintln(w)
}

func ratios(w io.Writer, name string, a, b []durations) {
	_, _ = fmt.Fprintf(w, "%s\t", name)
	for i := range a {
		_, _ = fmt.Fprintf(w, "%.3g\t%.3g\t", ratio(a[i], b[i], 50), ratio(a[i], b[i], 99))
	}
	_, _ = fmt.Fprintln(w)
}

func ratio(a, b durations, p int) float64 {
	return float64(a.percentile(p)) / float64(b.percentile(p))
}

func (d durations) ms(p int) string {
	return fmt.Sprintf("%.2f ms", float64(d.percentile(p))/float64(time.Millisecond))
}
