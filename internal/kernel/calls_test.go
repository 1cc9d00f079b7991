//go:build amd64 || arm64

package kernel

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
	"golang.org/x/sys/unix"
)

// What is opened inside is the namespace's, however many goroutines visit it,
// and none of them stays there.
func TestOpenInside(t *testing.T) {
	lntest.Isolate(t)
	n := newNetns(t)
	id, err := n.ID()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Do(func() error { return setSysctl(forwardV4, "1") }); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				visit(t, n, id)
			}
		})
	}
	wg.Wait()
	in(t, n, func(*conn) error { return nil }) // Do is at home as well
	if value, err := getSysctl(forwardV4); err != nil || value != "0" {
		t.Errorf("the test's own namespace: %s, %v", value, err)
	}
}

func visit(t *testing.T, n *Netns, id NetnsID) {
	fds, ok := n.openInside("", forwardV4)
	if !ok {
		t.Error("not opened")
		return
	}
	cookie, err := unix.GetsockoptUint64(fds[0], unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	value, verr := readSysctl(fds[1], forwardV4)
	if err := errors.Join(err, verr, unix.Close(fds[0]), unix.Close(fds[1])); err != nil {
		t.Error(err)
	}
	if cookie != id.Cookie || value != "1" {
		t.Errorf("a socket of namespace %d with forwarding %s, want %d and 1", cookie, value, id.Cookie)
	}
}

// What cannot be opened leaves nothing open, nor anything of the namespace one
// came from.
func TestOpenInsideRefuses(t *testing.T) {
	lntest.Isolate(t)
	n := newNetns(t)
	before := sockets(t)
	for _, c := range []struct {
		n    *Netns
		path string
	}{{n, "net/none"}, {n, "a\x00b"}, {&Netns{fd: -1, path: "gone"}, forwardV4}} {
		if fds, ok := c.n.openInside("", c.path); ok {
			t.Errorf("%s %q: opened %v", c.n.path, c.path, fds)
		}
	}
	if after := sockets(t); after != before {
		t.Errorf("%d sockets are open, before %d", after, before)
	}
}

// sockets counts the process's open rtnetlink sockets.
func sockets(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(target, "socket:") {
			count++
		}
	}
	return count
}
