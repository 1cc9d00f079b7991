package netns

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
	"golang.org/x/sys/unix"
)

func TestNetns(t *testing.T) {
	t.Parallel()
	lntest.Isolate(t)
	path := filepath.Join(t.TempDir(), "ns")
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	if err := Create(path); !errors.Is(err, ErrExists) {
		t.Errorf("twice: got %v, want %v", err, ErrExists)
	}
	n, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Do(func() error {
		lo, err := net.InterfaceByName("lo")
		if err == nil && lo.Flags&net.FlagUp == 0 {
			t.Error("lo is down")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	here, err := Current()
	if err != nil {
		t.Fatal(err)
	}
	a, aerr := n.ID()
	again, againerr := n.ID()
	b, berr := here.ID()
	if err := errors.Join(aerr, againerr, berr); err != nil {
		t.Fatal(err)
	}
	if a != again || a.Ino == b.Ino || a.Cookie == b.Cookie && a.Cookie != 0 {
		t.Errorf("IDs are %v, %v, %v", a, again, b)
	}
	if n.Path() != path {
		t.Errorf("path is %s", n.Path())
	}
	if err := errors.Join(n.Close(), here.Close()); err != nil {
		t.Error(err)
	}
	for range 2 { // missing is success
		if err := Remove(path); err != nil {
			t.Error(err)
		}
	}
	if _, err := Open(path); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed: got %v, want %v", err, ErrNotFound)
	}
}

func TestOpenNetnsRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		"": ErrNotFound, filepath.Join(dir, "none"): ErrNotFound, filepath.Join(file, "below"): ErrNotFound,
		file: ErrNotNetns, fifo: ErrNotNetns, dir: ErrNotNetns, "/proc/self/ns/mnt": ErrNotNetns,
	} {
		if _, err := Open(path); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", path, err, want)
		}
	}
	if err := Create(filepath.Join(dir, "no", "dir")); err == nil {
		t.Error("created in a missing folder")
	}
	if err := Remove(file); err != nil {
		t.Errorf("a file that is not mounted on: %v", err)
	}
}

func TestDo(t *testing.T) {
	t.Parallel()
	n := freshNetns(t)
	want := errors.New("mine")
	if err := n.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
	gone := &Namespace{fd: -1, path: "x"}
	if err := gone.Do(func() error { return nil }); !errors.Is(err, unix.EBADF) {
		t.Errorf("got %v, want EBADF", err)
	}
}

// The ioctl of today and the socket option of before tell the same.
func TestNamespaceIDIsTheCookie(t *testing.T) {
	n, err := Open(lntest.NewNetns(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	id, err := nsGetID(n.fd)
	if err != nil {
		t.Skip("the kernel has no NS_GET_ID:", err)
	}
	cookie, err := n.cookie()
	if err != nil || cookie != id {
		t.Errorf("cookie %d (%v), namespace ID %d", cookie, err, id)
	}
}

// BenchmarkDo is a process's first visit to a namespace, by Do and by a thread
// that is made for it and thrown away.
func BenchmarkDo(b *testing.B) {
	lntest.Isolate(b)
	n, err := Current()
	if err != nil {
		b.Fatal(err)
	}
	visit := func() error { return nil }
	lntest.Cold(b, map[string]func(){
		"own-thread": func() { _ = n.Do(visit) },
		"thrown-away": func() {
			_ = onThrownThread(func() error { return errors.Join(unix.Setns(n.fd, unix.CLONE_NEWNET), visit()) })
		},
	})
}

func BenchmarkNetnsID(b *testing.B) {
	n := freshNetns(b)
	for b.Loop() {
		if _, err := n.ID(); err != nil {
			b.Fatal(err)
		}
	}
}

// freshNetns opens a fresh namespace.
func freshNetns(t testing.TB) *Namespace {
	t.Helper()
	n, err := Open(lntest.NewNetns(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}
