package lntest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/sys/unix"
)

// IsolateHost gives the calling test what looks like a machine of its own: a
// fresh network namespace with lo up, and a fresh mount namespace in which
// /run, /var/lib, /etc/cni and the bpffs are empty. As with Isolate, only what the test's own
// goroutine opens and starts is in there, and all of it ends with the test.
func IsolateHost(t testing.TB) {
	t.Helper()
	Isolate(t)
	if err := unshareMounts(); err != nil {
		refuse(t, err)
	}
}

func unshareMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, dir := range []string{"/run", "/var/lib"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
		}
	}
	const pins = "/sys/fs/bpf" // programs and maps end with the test; a user namespace has none
	if err := unix.Mount("bpf", pins, "bpf", 0, ""); err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("mount a bpffs on %s: %w", pins, err)
	}
	const conf = "/etc/cni" // no configuration of the machine is read
	if _, err := os.Stat(conf); err == nil {
		if err := unix.Mount("tmpfs", conf, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mount a tmpfs on %s: %w", conf, err)
		}
	}
	return nil
}

// BindNetns makes a network namespace with lo up and binds it to the file
// path, which it makes. The caller is a test after IsolateHost, so that the
// mount ends with the test.
func BindNetns(t testing.TB, path string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = bindNew(path)
	}
	if err != nil {
		t.Fatalf("make network namespace %s: %v", path, err)
	}
}

// Enter runs fn in the namespace at path, on the test's own thread: path may
// be one that only the test's mount namespace has, and fn may call t.Fatal.
// The caller is a test after Isolate or IsolateHost.
func Enter(t testing.TB, path string, fn func()) {
	t.Helper()
	if err := enter(path, fn); err != nil {
		t.Fatalf("enter network namespace %s: %v", path, err)
	}
}

func enter(path string, fn func()) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := ns.GetCurrentNS()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, home.Set(), home.Close()) }()
	there, err := ns.GetNS(path)
	if err != nil {
		return err
	}
	if err := errors.Join(there.Set(), there.Close()); err != nil {
		return err
	}
	fn()
	return nil
}
