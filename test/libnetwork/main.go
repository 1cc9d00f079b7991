// Command libnetwork times our library beside libnetwork, the one that it takes the place of:
// a sandbox, an endpoint with a published port, join, and all of it back, with either backend
// of rules, and more and more containers present. It prints a table and needs root.
//
//	libnetwork [-n rounds] [-present 0,100]
//
// Each library works in a process with network and mount namespaces of its own; they take
// turns. It is a module of its own: libnetwork brings a hundred others.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// libraries are the contestants, by name.
var libraries = []struct {
	name    string
	backend string
	open    func(backend string) (library, error)
}{
	{"ours", "nftables", openOurs},
	{"libnetwork", "nftables", openTheirs},
	{"ours", "iptables", openOurs},
	{"libnetwork", "iptables", openTheirs},
}

// library makes containers on one network and removes them.
type library interface {
	add(name string, port uint16) error
	remove(name string) error
}

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("libnetwork", flag.ContinueOnError)
	flags.SetOutput(stderr)
	rounds := flags.Int("n", 20, "how often each is timed")
	present := flags.String("present", "0,100", "how many containers are there, in rising order")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	var err error
	if inside := os.Getenv("LIBRARY_INSIDE"); inside != "" {
		err = serve(inside, stdin, stdout)
	} else {
		err = compare(*rounds, strings.Split(*present, ","), stdout, stderr)
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "libnetwork:", err)
		return 1
	}
	return 0
}

// child is a process that has one library.
type child struct {
	name     string
	cmd      *exec.Cmd
	in       io.WriteCloser
	out      *bufio.Reader
	add, del []time.Duration
}

// ask has the child do something and returns its answer.
func (c *child) ask(word string) (string, error) {
	if _, err := fmt.Fprintln(c.in, word); err != nil {
		return "", err
	}
	line, err := c.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s: %s: no answer: %w", c.name, word, err)
	}
	if line = strings.TrimSpace(line); strings.HasPrefix(line, "error ") {
		return "", fmt.Errorf("%s: %s: %s", c.name, word, line)
	}
	return line, nil
}

func start(i int, stderr io.Writer) (*child, error) {
	l := libraries[i]
	c := &child{name: l.name + ", " + l.backend, cmd: exec.Command("/proc/self/exe")}
	c.cmd.Env = append(os.Environ(), fmt.Sprint("LIBRARY_INSIDE=", i))
	c.cmd.Stderr = stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	return c, c.cmd.Start()
}

func compare(rounds int, present []string, stdout, stderr io.Writer) (err error) {
	var children []*child
	defer func() {
		for _, c := range children { // it ends with its input
			err = errors.Join(err, c.in.Close(), c.cmd.Wait())
		}
	}()
	for i := range libraries {
		c, err := start(i, stderr)
		if err != nil {
			return err
		}
		children = append(children, c)
	}
	_, _ = fmt.Fprint(stdout, "| ms | present | ADD p50 | DEL p50 | ADD / libnetwork | DEL / libnetwork |\n|---|---:|---:|---:|---:|---:|\n")
	for _, n := range present {
		for _, c := range children {
			c.add, c.del = nil, nil
			if _, err := c.ask("present " + n); err != nil {
				return err
			}
		}
		for round := range rounds + 1 {
			for _, c := range children {
				if err := c.cycle(round > 0); err != nil {
					return err
				}
			}
		}
		for i := 0; i < len(children); i += 2 {
			ours, theirs := children[i], children[i+1]
			_, _ = fmt.Fprintf(stdout, "| %s | %s | %.2f | %.2f | %.4f | %.4f |\n| %s | %s | %.2f | %.2f | 1 | 1 |\n",
				ours.name, n, ms(ours.add), ms(ours.del), ms(ours.add)/ms(theirs.add), ms(ours.del)/ms(theirs.del),
				theirs.name, n, ms(theirs.add), ms(theirs.del))
		}
	}
	return nil
}

// cycle makes a container and removes it; the first time does not count.
func (c *child) cycle(counts bool) error {
	answer, err := c.ask("cycle")
	if err != nil {
		return err
	}
	var add, del time.Duration
	if _, err := fmt.Sscan(answer, (*int64)(&add), (*int64)(&del)); err != nil {
		return fmt.Errorf("%s: answer %q: %w", c.name, answer, err)
	}
	if counts {
		c.add, c.del = append(c.add, add), append(c.del, del)
	}
	return nil
}

// ms is the median.
func ms(all []time.Duration) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return float64(sorted[len(sorted)/2]) / 1e6
}

// serve does what the parent asks for.
func serve(inside string, stdin io.Reader, stdout io.Writer) error {
	i, err := strconv.Atoi(inside)
	if err != nil {
		return err
	}
	if err := prepare(); err != nil {
		return err
	}
	lib, err := libraries[i].open(libraries[i].backend)
	if err != nil {
		return err
	}
	const firstPort = 10000
	there := 0
	lines := bufio.NewScanner(stdin)
	for lines.Scan() {
		var answer string
		verb, number, _ := strings.Cut(lines.Text(), " ")
		switch verb {
		case "present":
			want, _ := strconv.Atoi(number)
			for answer = "ok"; there < want && err == nil; there++ {
				err = lib.add(fmt.Sprint("present", there), firstPort+uint16(there))
			}
		case "cycle":
			begin := time.Now()
			err = lib.add("timed", firstPort-1)
			added := time.Now()
			if err == nil {
				err = lib.remove("timed")
			}
			answer = fmt.Sprint(int64(added.Sub(begin)), int64(time.Since(added)))
		}
		if err != nil {
			answer = "error " + strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		if _, err := fmt.Fprintln(stdout, answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

// prepare makes the directories that both write to, in memory, and a host with loopback that
// forwards: with nftables libnetwork does not switch that on.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	errs := []error{unix.Mount("proc", "/proc", "proc", 0, ""), unix.Mount("tmpfs", "/run", "tmpfs", 0, "")}
	for _, dir := range []string{"/var/lib", "/var/run"} {
		if target, err := os.Readlink(dir); err != nil || target == "" {
			errs = append(errs, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
		}
	}
	errs = append(errs, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644))
	return errors.Join(append(errs, exec.Command("ip", "link", "set", "lo", "up").Run())...)
}
