package kubernetes

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// envInside tells the inner one of the test's two processes what it is: process 1 of the machine,
// whose end is the end of all there.
const envInside = "LIBNET_KUBERNETES_INSIDE"

func TestMain(m *testing.M) {
	if os.Getenv(envInside) != "" {
		if err := becomeMachine(); err != nil {
			fmt.Fprintln(os.Stderr, "set up the machine:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	code, err := inside()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e-kubernetes:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// inside runs this program once more, as the first process of its namespaces.
func inside() (int, error) {
	runtime.LockOSThread() // the child is killed when this thread ends
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, unix.SIGINT, unix.SIGTERM)
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), envInside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("make a machine's namespaces (needs root): %w", err)
	}
	go func() {
		<-interrupts
		_ = cmd.Process.Kill()
	}()
	err := cmd.Wait()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// becomeMachine gives this process's namespaces a loopback, /proc, and a /run of which nothing lasts.
func becomeMachine() error {
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount a tmpfs on /run: %w", err)
	}
	if err := errors.Join(os.MkdirAll("/run/netns", 0o755), os.MkdirAll("/run/lock", 0o755), os.MkdirAll("/var/lib/cni", 0o755)); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/var/lib/cni", "tmpfs", 0, "mode=0755"); err != nil { // leases of the reference plugins
		return fmt.Errorf("mount a tmpfs on /var/lib/cni: %w", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("set lo up: %w: %s", err, out)
	}
	return unix.Sethostname([]byte("e2e"))
}
