package lntest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Isolate moves the calling test into a fresh network namespace with lo up.
// The thread stays locked to the test's goroutine and dies with it, and the
// namespace with the thread. Sockets must be opened, and processes started,
// from that goroutine. It needs CAP_SYS_ADMIN, without which it skips for an
// ordinary user and fails for root.
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
	if err := bindNew(path); err != nil {
		refuse(t, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Errorf("unmount %s: %v", path, err)
		}
	})
	return path
}

// bindNew binds a new network namespace with lo up to a new file at path.
// testutils.NewNS of the reference plugins would make the machine's /run/netns
// a shared mount, which stays after a test that works in the machine's mount
// namespace.
func bindNew(path string) error {
	n, err := ns.TempNetNS()
	if err != nil {
		return err
	}
	err = errors.Join(n.Do(func(ns.NetNS) error { return loUp() }), os.WriteFile(path, nil, 0o600))
	if err == nil {
		err = unix.Mount(fmt.Sprintf("/proc/thread-self/fd/%d", n.Fd()), path, "", unix.MS_BIND, "")
	}
	return errors.Join(err, n.Close())
}

// In runs fn on a thread inside the namespace at path and waits for it.
// fn must not call t.Fatal: it runs on another goroutine than the test.
func In(t testing.TB, path string, fn func() error) error {
	t.Helper()
	return ns.WithNetNSPath(path, func(ns.NetNS) error { return fn() })
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

// NeedsRoot skips a test that fails in a user namespace whatever the code does; reason says
// what the kernel reserves for root of the host. It skips in make test-rootless alone, which
// sets LIBNET_ROOTLESS, and even then not where root is that of the host.
func NeedsRoot(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("LIBNET_ROOTLESS") != "" && !rootOfHost() {
		t.Skip("needs root of the host: " + reason)
	}
}

// rootOfHost says if this process is root in the first user namespace, which alone maps
// every number to itself.
func rootOfHost() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && os.Geteuid() == 0 && slices.Equal(strings.Fields(string(text)), []string{"0", "0", "4294967295"})
}

// refuse ends a test without a namespace. An ordinary user's is skipped; root's fails, or
// a container without capabilities would pass all tests.
func refuse(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		t.Skip("needs CAP_SYS_ADMIN to make network namespaces: run make test-rootless, or as root")
	}
	t.Fatal(err)
}
