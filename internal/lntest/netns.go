package lntest

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Isolate moves the calling test into a fresh network namespace with lo up.
// The thread stays locked to the test's goroutine and dies with it, and the
// namespace with the thread. Sockets must be opened, and processes started,
// from that goroutine. It needs CAP_SYS_ADMIN and skips where the kernel
// refuses it.
func Isolate(t testing.TB) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread is thrown away
	if err := unshareNet(); err != nil {
		refuse(t, err)
	}
}

// NewNetns makes a network namespace with lo up, bound to a file in the
// test's own directory, and removes it when the test ends.
func NewNetns(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	errc := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		errc <- errors.Join(unshareNet(), unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""))
	}()
	if err := <-errc; err != nil {
		refuse(t, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Errorf("unmount %s: %v", path, err)
		}
	})
	return path
}

// In runs fn on a thread inside the namespace at path and waits for it.
// fn must not call t.Fatal: it runs on another goroutine than the test.
func In(t testing.TB, path string, fn func() error) error {
	t.Helper()
	errc := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		f, err := os.Open(path)
		if err != nil {
			errc <- err
			return
		}
		defer func() { _ = f.Close() }()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			errc <- err
			return
		}
		errc <- fn()
	}()
	return <-errc
}

func unshareNet() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	return loUp()
}

func loUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

func refuse(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, unix.EPERM) {
		t.Skip("needs root (CAP_SYS_ADMIN) to make network namespaces")
	}
	t.Fatal(err)
}
