package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The test's two processes tell each other these by their environment. The
// inner one is process 1 of the machine; its end is the end of all there.
const (
	envHelpers = "E2E_HELPERS" // where pod and recorder are
	envCgroup  = "E2E_CGROUP"  // the cgroup of all containers
)

func TestMain(m *testing.M) {
	if os.Getenv(envCgroup) != "" {
		if err := becomeMachine(); err != nil {
			fmt.Fprintln(os.Stderr, "set up the machine:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	code, err := outside()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// outside builds the helpers, runs the tests in a machine and removes what the
// machine cannot take with it.
func outside() (code int, err error) {
	helpers, err := os.MkdirTemp("", "libnet-e2e-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(helpers)) }()
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", helpers, "./pod", "./recorder")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return 0, fmt.Errorf("build pod and recorder: %w", err)
	}
	cgroup := fmt.Sprintf("libnet-e2e-%d", os.Getpid())
	before, err := controllers()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, removeCgroups(cgroup), disableControllers(before)) }()
	return inside(envHelpers+"="+helpers, envCgroup+"="+cgroup)
}

// inside runs this program once more, as the first process of its namespaces.
func inside(env ...string) (int, error) {
	runtime.LockOSThread() // the child is killed when this thread ends
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, unix.SIGINT, unix.SIGTERM)
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), env...)
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

// removeCgroups removes the cgroup of that name from every hierarchy. Its
// processes have ended with the machine.
func removeCgroups(name string) error {
	var errs []error
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		roots, err := filepath.Glob(pattern + name)
		errs = append(errs, err)
		for _, root := range roots {
			var dirs []string
			errs = append(errs, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return err
			}))
			for _, dir := range slices.Backward(dirs) {
				errs = append(errs, unix.Rmdir(dir))
			}
		}
	}
	return errors.Join(errs...)
}

// subtreeControl has the controllers of version 2 that all cgroups but the root
// may use. runc enables every one.
const subtreeControl = "/sys/fs/cgroup/cgroup.subtree_control"

// controllers returns the enabled ones; none where cgroups are of version 1.
func controllers() ([]string, error) {
	data, err := os.ReadFile(subtreeControl)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return strings.Fields(string(data)), err
}

// disableControllers disables those that were not enabled before, unless
// another program has come to need them.
func disableControllers(before []string) error {
	now, err := controllers()
	errs := []error{err}
	for _, c := range now {
		if slices.Contains(before, c) {
			continue
		}
		if err := os.WriteFile(subtreeControl, []byte("-"+c), 0o644); !errors.Is(err, unix.EBUSY) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// becomeMachine gives this process's namespaces a loopback, /proc, a name, and
// file systems of which nothing written lasts.
func becomeMachine() error {
	// A plain su on Debian leaves root without them.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := tmpfs("/run"); err != nil {
		return err
	}
	for _, dir := range []string{"/etc", "/opt", "/var"} {
		if err := overlay(dir); err != nil {
			return err
		}
	}
	// Empty, and not overlays: containerd mounts overlays of its own.
	for _, dir := range []string{"/etc/cni", "/opt/cni", "/var/lib/cni", "/var/lib/containerd"} {
		if err := tmpfs(dir); err != nil {
			return err
		}
	}
	return errors.Join(unix.Sethostname([]byte("e2e")), loUp())
}

func tmpfs(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
	}
	return nil
}

// overlay has dir read as it is and written to memory.
func overlay(dir string) error {
	layers := filepath.Join("/run/e2e", strings.ReplaceAll(dir, "/", "_"))
	upper, work := layers+"/upper", layers+"/work"
	if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755)); err != nil {
		return err
	}
	options := "lowerdir=" + dir + ",upperdir=" + upper + ",workdir=" + work
	if err := unix.Mount("overlay", dir, "overlay", 0, options); err != nil {
		return fmt.Errorf("mount an overlay on %s: %w", dir, err)
	}
	return nil
}

func loUp() error {
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err = unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo); err != nil {
		err = fmt.Errorf("set lo up: %w", err)
	}
	return errors.Join(err, unix.Close(s))
}
