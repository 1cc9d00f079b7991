package subnets

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// The test binary runs itself as the processes that share a book.
const childEnv = "SUBNETS_CHILD"

func TestMain(m *testing.M) {
	if job := os.Getenv(childEnv); job != "" {
		if err := child(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child runs a job: "<first> <end> <data dir>". It chooses subnets for networks first to
// end-1.
func child(job string) error {
	var first, end int
	var data string
	if _, err := fmt.Sscan(job, &first, &end, &data); err != nil {
		return err
	}
	s := Book{DataDir: data, PoolsFile: filepath.Join(data, "pools.json"), LockTimeout: time.Minute}
	for n := first; n < end; n++ {
		if _, err := s.Apply(context.Background(), Claim{Network: fmt.Sprint("n", n)}); err != nil {
			return err
		}
	}
	return nil
}

// inProcesses chooses subnets for 1000 networks in n processes at once.
func inProcesses(t testing.TB, n int, data string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var cmds []*exec.Cmd
	for i := range n {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1", fmt.Sprintf("%s=%d %d %s", childEnv, 1000*i/n, 1000*(i+1)/n, data))
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, cmd)
	}
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}
