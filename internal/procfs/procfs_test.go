package procfs

import (
	"errors"
	"io"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

const forward = "net/ipv4/ip_forward"

func read(t testing.TB, f *FS, path string) string {
	t.Helper()
	fd, err := f.Open(path, unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), path)
	data, err := io.ReadAll(file)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// By an instance of its own a thread sees the sysctls of its own network namespace, and
// what is written there is written.
func TestOwnInstance(t *testing.T) {
	lntest.IsolateHost(t)
	f := New()
	t.Cleanup(f.Close)
	fd, err := f.Open(forward, unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(fd, []byte("1")); err != nil {
		t.Fatal(err)
	}
	var own, all unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &own), unix.Close(fd), unix.Stat("/proc/sys/"+forward, &all)); err != nil {
		t.Fatal(err)
	}
	if own.Dev == all.Dev && os.Getenv("LIBNET_ROOTLESS") == "" {
		t.Error("it is /proc that all share")
	}
	if data, err := os.ReadFile("/proc/sys/" + forward); string(data) != "1\n" {
		t.Errorf("in /proc it is %q (%v)", data, err)
	}
	lntest.Enter(t, lntest.NewNetns(t), func() {
		if got := read(t, f, forward); got != "0\n" {
			t.Errorf("in another namespace it is %q", got)
		}
	})
	if got := read(t, f, forward); got != "1\n" {
		t.Errorf("back at home it is %q", got)
	}
	if _, err := f.Open("net/none", unix.O_RDONLY); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a missing file: %v", err)
	}
}

// A /proc/sys that takes nothing, or is hidden, is not got around.
func TestReadOnly(t *testing.T) {
	for name, cover := range map[string]func() error{
		"read-only": func() error {
			return errors.Join(unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""),
				unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
		},
		"covered": func() error { return unix.Mount("none", "/proc/sys", "tmpfs", 0, "") },
	} {
		t.Run(name, func(t *testing.T) {
			lntest.IsolateHost(t)
			if err := cover(); err != nil {
				t.Fatal(err)
			}
			f := New()
			t.Cleanup(f.Close)
			fd, err := f.Open(forward, unix.O_RDWR)
			if err == nil {
				_ = unix.Close(fd)
			}
			if want := map[string]error{"read-only": unix.EROFS, "covered": unix.ENOENT}[name]; !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		})
	}
}

// Many goroutines use an FS while it makes one instance after the other.
func TestVisits(t *testing.T) {
	f := New()
	t.Cleanup(f.Close)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 2 * maxVisits {
				f.Visit(func(dir int, prefix string) {
					fd, err := unix.Openat(dir, prefix+forward, unix.O_RDONLY|unix.O_CLOEXEC, 0)
					if err != nil {
						t.Error(err)
						return
					}
					_ = unix.Close(fd)
				})
			}
		})
	}
	wg.Wait()
}
