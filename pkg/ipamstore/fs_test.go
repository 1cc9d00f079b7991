package ipamstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/pooldir"
)

// mount mounts a tmpfs at path, or makes it a read-only view of itself.
func mount(t *testing.T, path, options string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	if options == "ro" {
		err = errors.Join(unix.Mount(path, path, "", unix.MS_BIND, ""), unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	} else {
		err = unix.Mount("tmpfs", path, "tmpfs", 0, options)
	}
	if errors.Is(err, unix.EPERM) && os.Getuid() != 0 {
		t.Skip("needs CAP_SYS_ADMIN to mount: run make test-rootless, or as root")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	for _, size := range []string{"size=256k", "nr_inodes=40"} {
		dir := t.TempDir()
		mount(t, dir, size)
		s := mustOpen(t, Config{DataDir: dir, Sets: sets("10.1.0.0/22", "fd00::/64")})
		var err error
		n := 0
		for ; err == nil && n < 1000; n++ {
			_, err = s.Apply(t.Context(), request(n))
		}
		if !errors.Is(err, ErrIO) || !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("%s: after %d leases: %v", size, n, err)
		}
		full := n - 1
		if files := leaseFiles(t, s); len(files) != 2*full {
			t.Errorf("%s: %d lease files of %d owners", size, len(files), full)
		}
		if _, err := s.Status(t.Context()); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: status: %v", size, err)
		}
		for i := range full {
			if err := s.Verify(t.Context(), owner(i), nil); err != nil {
				t.Errorf("%s: %v", size, err)
			}
		}
		mustRemove(t, s, 0)
		checkIndex(t, s)
		for i := 1; i < full; i++ {
			mustRemove(t, s, i)
		}
		if files := leaseFiles(t, s); len(files) != 0 {
			t.Errorf("%s: %d lease files are left", size, len(files))
		}
		mustApply(t, s, request(2000))
		if !checkIndex(t, s) {
			t.Errorf("%s: the index is not trusted", size)
		}
	}
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/24")})
	mustApply(t, s, request(1))
	newHostLocal(t, s).add(t, owner(2), "10.1.0.9")
	mount(t, s.conf.DataDir, "ro")
	if _, err := s.Apply(t.Context(), request(3)); !errors.Is(err, ErrIO) || !errors.Is(err, unix.EROFS) {
		t.Errorf("apply: %v", err)
	}
	if err := s.Remove(t.Context(), owner(1)); !errors.Is(err, ErrIO) {
		t.Errorf("remove: %v", err)
	}
	if err := s.Remove(t.Context(), owner(3)); err != nil {
		t.Errorf("remove of a stranger: %v", err)
	}
	for n := 1; n < 3; n++ {
		if err := s.Verify(t.Context(), owner(n), nil); err != nil {
			t.Errorf("verify: %v", err)
		}
	}
	if u, err := s.Status(t.Context()); !errors.Is(err, unix.EROFS) || u.Sets[0].Held != 2 {
		t.Errorf("status: %+v, %v", u, err)
	}
	if list, err := s.List(t.Context()); err != nil || len(list) != 2 {
		t.Errorf("list: %v, %v", list, err)
	}
}

func TestOtherUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root to become another user")
	}
	lntest.NeedsRoot(t, "a second user is not mapped")
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/24")})
	mustApply(t, s, request(1))
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		_, _ = unix.SetfsuidRetUid(65534)
		_, err := s.Apply(t.Context(), request(2))
		done <- err
	}()
	if err := <-done; !errors.Is(err, ErrIO) || !errors.Is(err, unix.EACCES) {
		t.Errorf("apply as uid 65534: %v", err)
	}
}

// The pool is a mount of its own, so that files cannot be renamed into it.
func TestOwnMount(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/24", "fd00::/64")})
	mount(t, s.path(), "size=1m")
	mustApply(t, s, request(1))
	mustApply(t, s, request(2))
	mustRemove(t, s, 1)
	if files := leaseFiles(t, s); len(files) != 2 || files["10.1.0.3"] != "c2\r\neth0" {
		t.Errorf("files %q", files)
	}
	if !checkIndex(t, s) {
		t.Error("the index is not trusted")
	}
}

func TestSymlinks(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("victim"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := func(target, name string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.RemoveAll(name), os.Symlink(target, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"net", pooldir.IndexDir, pooldir.IndexDir + "/net"} {
		s := mustOpen(t, Config{Sets: sets("10.1.0.0/24")})
		link(t.TempDir(), filepath.Join(s.conf.DataDir, name))
		_, err := s.Apply(t.Context(), request(1))
		if !errors.Is(err, ErrIO) || !strings.Contains(err.Error(), "symbolic link") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"lock", "10.1.0.2", "last_reserved_ip.0"} {
		s := mustOpen(t, Config{Sets: sets("10.1.0.0/24")})
		link(outside, filepath.Join(s.path(), name))
		leases, err := s.Apply(t.Context(), request(1))
		if name == "lock" != (err != nil) || err == nil && name == "10.1.0.2" && show(leases) != "10.1.0.3" {
			t.Errorf("%s: %s, %v", name, show(leases), err)
		}
		_, err = s.Collect(t.Context(), func(Holder) bool { return false })
		if name == "lock" != (err != nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if data, err := os.ReadFile(outside); string(data) != "victim" {
		t.Errorf("outside: %q, %v", data, err)
	}
}

// Lease files with a second name, as backups make them, are not written to.
func TestHardLinks(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/24")})
	backup := filepath.Join(t.TempDir(), "backup")
	for i := range 5 {
		name := mustApply(t, s, request(i))
		if err := os.Link(filepath.Join(s.path(), name), backup); err != nil {
			t.Fatal(err)
		}
		mustRemove(t, s, i)
		mustApply(t, s, request(100+i))
		mustRemove(t, s, 100+i)
		if data, err := os.ReadFile(backup); string(data) != fmt.Sprintf("c%d\r\neth0", i) {
			t.Fatalf("backup is %q, %v", data, err)
		}
		if err := os.Remove(backup); err != nil {
			t.Fatal(err)
		}
	}
}

// A second name of the cursor's file is another's file: it keeps its content.
func TestCursorHardLink(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, Config{Sets: sets("10.1.0.0/24")})
	mustApply(t, s, request(1))
	other := filepath.Join(t.TempDir(), "other")
	cursor := filepath.Join(s.path(), "last_reserved_ip.0")
	if err := errors.Join(os.WriteFile(other, []byte("precious and long enough"), 0o600), os.Remove(cursor), os.Link(other, cursor)); err != nil {
		t.Fatal(err)
	}
	mustApply(t, s, request(2))
	if got, err := os.ReadFile(other); string(got) != "precious and long enough" {
		t.Errorf("the other file has %q (%v)", got, err)
	}
	if got, err := os.ReadFile(cursor); string(got) != "10.1.0.3" {
		t.Errorf("the cursor has %q (%v)", got, err)
	}
}
