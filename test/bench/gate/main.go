// Command gate fails when an ADD costs 3 % more than a file says: instructions of the process
// by valgrind, and system calls by strace, which do not depend on the machine's load as time
// does. It works in network and mount namespaces of its own and needs root.
//
//	gate [-set] [-n rounds] file
//
// The directory of the plugins comes in BIN; `make bench-gate` sets it. With -set it writes
// the file.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/test/bench/apart"
)

// most is how much more an ADD may cost, in parts of 1.
const most = 0.03

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("gate", flag.ContinueOnError)
	flags.SetOutput(stderr)
	set := flags.Bool("set", false, "write the figures to the file")
	rounds := flags.Int("n", 31, "how many ADDs are counted; the lower quartile is compared")
	if err := flags.Parse(args); err != nil || flags.NArg() != 1 || *rounds < 1 {
		_, _ = fmt.Fprintln(stderr, "usage: gate [-set] [-n rounds] file")
		return 2
	}
	if os.Getenv("GATE_INSIDE") == "" {
		return apart.Run("gate", "GATE_INSIDE", stdout, stderr)
	}
	if err := gate(stdout, flags.Arg(0), *rounds, *set); err != nil {
		_, _ = fmt.Fprintln(stderr, "gate:", err)
		return 1
	}
	return 0
}

// figures are what an ADD costs.
type figures struct{ instructions, calls int }

func gate(stdout io.Writer, file string, rounds int, set bool) error {
	got, err := measure(rounds)
	if err != nil {
		return err
	}
	by := "by " + runtime.Version()
	if set {
		text := fmt.Sprintf("instructions %d\nsystem calls %d\n%s\n", got.instructions, got.calls, by)
		return os.WriteFile(file, []byte(text), 0o644)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	want, err := parse(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if !strings.Contains(string(text), by+"\n") {
		_, _ = fmt.Fprintf(stdout, "note: the figures are of another Go than %s\n", runtime.Version())
	}
	return errors.Join(
		compare(stdout, "instructions of the process", got.instructions, want.instructions),
		compare(stdout, "system calls", got.calls, want.calls))
}

// parse reads what -set writes.
func parse(text string) (f figures, err error) {
	if _, err = fmt.Sscanf(text, "instructions %d\nsystem calls %d\n", &f.instructions, &f.calls); err == nil && min(f.instructions, f.calls) <= 0 {
		err = errors.New("want figures above 0")
	}
	return f, err
}

// compare is an error if got is too much.
func compare(stdout io.Writer, what string, got, want int) error {
	more := float64(got)/float64(want) - 1
	_, _ = fmt.Fprintf(stdout, "an ADD takes %d %s, %+.1f %% of %d\n", got, what, 100*more, want)
	if more > most {
		return fmt.Errorf("an ADD takes %.1f %% more %s than the figure in the tree; %.0f %% are allowed. If that is meant: make bench-gate SET=-set", 100*more, what, 100*most)
	}
	return nil
}

// The configuration of a container with a published port, which takes most parts of an ADD.
const conf = `{"cniVersion":"1.0.0","name":"gate","type":"bridge-ln","bridge":"gate0","gatewayMode":"nat",
	"ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.1.0.0/16"}]]},"capabilities":{"portMappings":true},
	"runtimeConfig":{"portMappings":[{"hostPort":%d,"containerPort":80,"protocol":"tcp"}]}}`

const (
	netnsDir = "/run/netns"
	counts   = "/run/counts"
	logFile  = "/run/valgrind.log"
)

// counters run a program and count.
var counters = []struct {
	command []string
	read    func() (int, error)
}{
	{[]string{"valgrind", "--tool=callgrind", "--separate-threads=yes", "--callgrind-out-file=" + counts, "--log-file=" + logFile}, instructions},
	{[]string{"strace", "-f", "-c", "-U", "calls,name", "-o", counts}, systemCalls},
}

// watchdog is the thread of Go's sysmon, the first one that a process starts. How often it
// looks depends on how long the process takes.
const watchdog = "-02"

var totals = regexp.MustCompile(`(?m)^totals: ([0-9]+)$`)

// instructions are those of all threads but one.
func instructions() (sum int, err error) {
	files, err := filepath.Glob(counts + "-*")
	for _, file := range files {
		text, readErr := os.ReadFile(file)
		err = errors.Join(err, readErr, os.Remove(file))
		found := totals.FindSubmatch(text)
		if found == nil || strings.HasSuffix(file, watchdog) {
			continue
		}
		n, atoiErr := strconv.Atoi(string(found[1]))
		sum, err = sum+n, errors.Join(err, atoiErr)
	}
	return sum, err
}

// waiting are calls by which Go's threads wait for each other.
var waiting = []string{"futex", "nanosleep", "sched_yield", "tgkill", "getpid", "gettid", "rt_sigreturn", "restart_syscall", "epoll_pwait", "total"}

func systemCalls() (int, error) {
	text, err := os.ReadFile(counts)
	return sumOf(string(text)), errors.Join(err, os.Remove(counts))
}

// sumOf adds up a table of strace, but for calls that wait.
func sumOf(table string) (sum int) {
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) != 2 || slices.Contains(waiting, fields[1]) {
			continue
		}
		if n, err := strconv.Atoi(fields[0]); err == nil {
			sum += n
		}
	}
	return sum
}

// measure counts so many ADDs beside another container. It takes the lower quartile: what
// differs from one ADD to the next is how long Go's threads look for work, which only adds.
func measure(rounds int) (figures, error) {
	if err := prepare(); err != nil {
		return figures{}, err
	}
	if err := call(nil, "ADD", "first", 8080); err != nil {
		return figures{}, err
	}
	var quartiles [2]int
	for i, c := range counters {
		var all []int
		for range rounds {
			n, err := count(c.command, c.read)
			if err != nil {
				return figures{}, err
			}
			all = append(all, n)
		}
		slices.Sort(all)
		quartiles[i] = all[len(all)/4]
	}
	return figures{quartiles[0], quartiles[1]}, nil
}

// count counts one ADD, and takes it back.
func count(by []string, read func() (int, error)) (n int, err error) {
	if err = call(by, "ADD", "counted", 8081); err == nil {
		n, err = read()
	}
	if err == nil && n == 0 {
		err = errors.New("no number")
	}
	if err != nil {
		err = fmt.Errorf("count by %s: %w", by[0], err)
	}
	return n, errors.Join(err, call(nil, "DEL", "counted", 8081))
}

// prepare makes the places that an ADD writes to, and the containers.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	errs := []error{unix.Mount("proc", "/proc", "proc", 0, ""), unix.Mount("tmpfs", "/run", "tmpfs", 0, "")}
	for _, dir := range []string{netnsDir, "/var/lib/cni"} {
		errs = append(errs, os.MkdirAll(dir, 0o755))
	}
	errs = append(errs, unix.Mount("tmpfs", "/var/lib/cni", "tmpfs", 0, ""))
	for _, name := range []string{"first", "counted"} {
		path := filepath.Join(netnsDir, name)
		errs = append(errs, os.WriteFile(path, nil, 0o600),
			exec.Command("unshare", "-n", "mount", "--bind", "/proc/self/ns/net", path).Run())
	}
	return errors.Join(errs...)
}

// call calls bridge-ln, by another program if that is given. One processor, no garbage
// collection and no preemption keep Go's runtime from being counted for what it does at times
// only, and valgrind from its signals, of which it dies at times.
func call(by []string, verb, id string, port int) error {
	bin := os.Getenv("BIN")
	command := append(slices.Clone(by), filepath.Join(bin, "bridge-ln"))
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin = strings.NewReader(fmt.Sprintf(conf, port))
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + id, "CNI_NETNS=" + filepath.Join(netnsDir, id),
		"CNI_IFNAME=eth0", "CNI_PATH=" + bin, "GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1,cpu.rdtscp=off", // valgrind 3.19 does not know rdtscp
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		log, _ := os.ReadFile(logFile)
		return fmt.Errorf("%s of %s: %w: %s%s", verb, command, err, out, log)
	}
	return nil
}
