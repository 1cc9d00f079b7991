package lntest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// reexeced marks the process that runs the tests inside the namespaces.
const reexeced = "LNTEST_REEXECED"

// Main runs a package's tests in a process of their own network and mount
// namespace, in which lo is up and /run and /var/lib are empty. TestMain calls
// it with os.Exit. All tests of the package share the namespace: they choose
// names and addresses of their own. It needs CAP_SYS_ADMIN.
func Main(m *testing.M) int {
	if os.Getenv(reexeced) == "" {
		return reexec()
	}
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, "set up the test's namespaces:", err)
		return 1
	}
	return m.Run()
}

func reexec() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), reexeced+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "run the tests in namespaces of their own (needs root):", err)
	return 1
}

func setUp() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, dir := range []string{"/run", "/var/lib"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
		}
	}
	return loUp()
}
