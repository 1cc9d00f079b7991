package names

import (
	"errors"
	"fmt"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// pair returns two ends of a connection, closed with the test.
func pair(t *testing.T) (here, there int) {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(ends[0]); _ = unix.Close(ends[1]) })
	return ends[0], ends[1]
}

// A bell rings once for what makes its file readable, and always once it is closed.
func TestBell(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, there := pair(t)
	b, err := newBell(here)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		t.Skip("no io_uring for this process: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 8)
	for round := range 100 {
		if b.rang() {
			t.Fatalf("round %d: rang before there was anything", round)
		}
		done := make(chan error)
		for range 2 {
			go func() { _, err := unix.Write(there, []byte("x")); done <- err }()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		_ = unix.Getpid() // any system call
		if !b.rang() {
			t.Fatalf("round %d: did not ring", round)
		}
		for range 2 {
			if _, err := unix.Read(here, buf); err != nil {
				t.Fatal(err)
			}
		}
		_ = b.rang() // there was something when it began to wait again
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if !b.rang() {
			t.Error("a bell that is closed says that nothing came")
		}
	}
}

// Where a worker of the kernel tells of the file, as before Linux 5.7, there is no bell.
func TestBellNeedsOwnWork(t *testing.T) {
	for _, features := range []uint32{0, featureOneMap, 1<<5 - 1} {
		b := bell{fd: -1}
		if err := b.mapRing(ringParams{features: features}); !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("features %#x: %v", features, err)
		}
	}
}

// A thread that has received a message knows what was recorded before it was sent, also
// while others read the same news.
func TestLooker(t *testing.T) {
	l := newLab(t, Config{})
	l.put("front", "c-web", "10.1.0.2/24", "web")
	l.put("front", "c-api", "10.1.0.3/24", "api")
	here, there := pair(t)
	stop, over := make(chan struct{}), make(chan struct{})
	defer func() { close(stop); <-over }()
	go func() { // as Run and other threads do
		defer close(over)
		for {
			select {
			case <-stop:
				return
			default:
				l.update()
				runtime.Gosched()
			}
		}
	}()
	go func() {
		buf := make([]byte, 8)
		for i := range 1000 {
			address := fmt.Sprintf("10.1.0.%d/24", 10+i%200)
			if i%3 == 2 {
				if err := l.dir.DeleteEndpoint("front", "c-api", "eth-front"); err != nil {
					t.Error(err)
				}
			} else {
				l.put("front", "c-api", address, "api")
			}
			_, _ = unix.Write(there, []byte("?"))
			_, _ = unix.Read(there, buf)
		}
	}()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	look, done := l.looker()
	defer done()
	buf := make([]byte, 8)
	for i := range 1000 {
		if n, err := unix.Read(here, buf); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		look()
		want := fmt.Sprintf("10.1.0.%d", 10+i%200)
		if i%3 == 2 {
			want = "foreign"
		}
		if got := l.answer("front", "10.1.0.2", "api", false); got != want {
			t.Fatalf("round %d: %s, want %s", i, got, want)
		}
		if _, err := unix.Write(here, []byte("!")); err != nil {
			t.Fatal(err)
		}
	}
}
