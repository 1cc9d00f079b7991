package ipamstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary runs itself as the processes that share a pool.
const childEnv = "IPAMSTORE_CHILD"

func TestMain(m *testing.M) {
	if job := os.Getenv(childEnv); job != "" {
		os.Exit(child(strings.Fields(job)))
	}
	os.Exit(m.Run())
}

// child runs a job: "<what> <data dir> <first> <end>". It writes a line for
// each lease once Apply has returned.
func child(job []string) int {
	first, _ := strconv.Atoi(job[2])
	end, _ := strconv.Atoi(job[3])
	s, err := Open(Config{Network: "net", DataDir: job[1], Sets: sets("10.1.0.0/22", "fd00::/64"), LockTimeout: time.Minute})
	for n := first; err == nil && n < end; n++ {
		switch job[0] {
		case "add":
			var leases []Lease
			if leases, err = s.Apply(context.Background(), request(n)); err == nil {
				_, err = fmt.Println(n, show(leases))
			}
		case "del":
			err = s.Remove(context.Background(), owner(n))
		case "churn":
			if _, err = s.Apply(context.Background(), request(n)); err == nil && n%3 != 0 {
				err = s.Remove(context.Background(), owner(n))
			}
		case "hold":
			err = s.do(context.Background(), making, func(*session) error {
				fmt.Println("locked")
				_, err := io.ReadAll(os.Stdin)
				return err
			})
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func childCmd(t testing.TB, format string, args ...any) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", childEnv+"="+fmt.Sprintf(format, args...))
	cmd.Stderr = os.Stderr
	return cmd
}

// each starts n children of a job, each with its part of 1000 owners, and
// returns what they wrote.
func each(t testing.TB, n int, job, data string) []byte {
	t.Helper()
	var cmds []*exec.Cmd
	var out []io.Reader
	for i := range n {
		cmd := childCmd(t, "%s %s %d %d", job, data, 1000*i/n, 1000*(i+1)/n)
		pipe, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		cmds, out = append(cmds, cmd), append(out, pipe)
	}
	all, err := io.ReadAll(io.MultiReader(out...))
	for _, cmd := range cmds {
		err = errors.Join(err, cmd.Wait())
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestManyProcesses(t *testing.T) {
	t.Parallel()
	n := 64
	if testing.Short() {
		n = 8
	}
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/22", "fd00::/64")})
	seen := map[string]bool{}
	for line := range strings.Lines(string(each(t, n, "add", s.conf.DataDir))) {
		for _, a := range strings.Fields(line)[1:] {
			if seen[a] {
				t.Errorf("%s was leased twice", a)
			}
			seen[a] = true
		}
	}
	if files := leaseFiles(t, s); len(seen) != 2000 || len(files) != 2000 {
		t.Errorf("%d leases, %d files, want 2000", len(seen), len(files))
	}
	if !checkIndex(t, s) {
		t.Error("the index is not trusted")
	}
	each(t, n, "del", s.conf.DataDir)
	if files := leaseFiles(t, s); len(files) != 0 {
		t.Errorf("%d files are left", len(files))
	}
	checkIndex(t, s)
}

// Processes are killed at random moments; what one had been told it leased is
// there, nothing is leased twice, and a collection leaves nothing.
func TestKill(t *testing.T) {
	t.Parallel()
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/22", "fd00::/64")})
	told := map[string]string{} // address to owner
	for i := range rounds {
		cmd := childCmd(t, "add %s %d %d", s.conf.DataDir, i*1000, i*1000+1000)
		other := childCmd(t, "churn %s %d %d", s.conf.DataDir, 1e6+i*1000, 1e6+i*1000+1000)
		pipe, err := cmd.StdoutPipe()
		if err := errors.Join(err, cmd.Start(), other.Start()); err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(pipe)
		for range i % 9 { // then kill, somewhere in the next one
			sc.Scan()
			f := strings.Fields(sc.Text())
			for _, a := range f[1:] {
				if told[a] != "" {
					t.Errorf("%s of %s was leased to %s", a, told[a], f[0])
				}
				told[a] = f[0]
			}
		}
		_, _ = cmd.Process.Kill(), other.Process.Kill()
		_, _ = cmd.Wait(), other.Wait()
	}
	files := leaseFiles(t, s)
	for a, n := range told {
		if files[a] != "c"+n+"\r\neth0" {
			t.Errorf("%s of %s is %q", a, n, files[a])
		}
	}
	checkIndex(t, s)
	n, err := s.Collect(t.Context(), func(h Holder) bool { return h.NetnsID == "0" })
	if files = leaseFiles(t, s); err != nil || n == 0 || len(files) > 2 {
		t.Errorf("collected %d, %v; left %v", n, err, files)
	}
	checkIndex(t, s)
}

// A stopped process holds the lock: the wait is bounded and the error names it.
func TestLocked(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/22"), LockTimeout: 50 * time.Millisecond})
	cmd := childCmd(t, "hold %s 0 1", s.conf.DataDir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	bufio.NewScanner(stdout).Scan()
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatal(status, err)
	}
	_, err = s.Apply(t.Context(), request(1))
	if want := fmt.Sprintf("held by process %d", cmd.Process.Pid); !errors.Is(err, ErrLocked) ||
		!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("error %v, want %s", err, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Remove(ctx, owner(1)); !errors.Is(err, ErrLocked) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := errors.Join(cmd.Process.Signal(syscall.SIGCONT), stdin.Close(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	// The waits given up must not keep the lock.
	s.conf.LockTimeout = time.Minute
	mustApply(t, s, request(1))
}
