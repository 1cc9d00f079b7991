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

// rounds is how often each chain is added and deleted.
const rounds = 100

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
	chains := []*chain{bare("ours", "bridge-ln", "ipam-ln", "br-ours", "10.61.0.0/16"), bare("reference", "bridge", "host-local", "br-ref", "10.62.0.0/16")}
	for i := range rounds {
		for _, c := range chains {
			if err := c.round(i); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	return table(stdout, chains)
}

// table prints each chain's times and, below, how many times faster the first
// is than the second.
func table(stdout io.Writer, chains []*chain) error {
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintf(w, "bridge and address, one at a time\tADD p50\tADD p99\tDEL p50\tDEL p99\t\n")
	for _, c := range chains {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t\n", c.name, c.add.ms(50), c.add.ms(99), c.del.ms(50), c.del.ms(99))
	}
	a, b := chains[0], chains[1]
	_, _ = fmt.Fprintf(w, "ours / reference\t%.2f\t%.2f\t%.2f\t%.2f\t\n",
		ratio(a.add, b.add, 50), ratio(a.add, b.add, 99), ratio(a.del, b.del, 50), ratio(a.del, b.del, 99))
	return w.Flush()
}

func ratio(a, b durations, p int) float64 {
	return float64(a.percentile(p)) / float64(b.percentile(p))
}

func (d durations) ms(p int) string {
	return fmt.Sprintf("%.2f ms", float64(d.percentile(p))/float64(time.Millisecond))
}
