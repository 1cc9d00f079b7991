package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
	"golang.org/x/sys/unix"
)

const forward = "net/ipv4/ip_forward"

// OpenInside opens files and sockets of the namespace, however many goroutines visit it,
// and none of them stays there.
func TestOpenInside(t *testing.T) {
	lntest.Isolate(t)
	n := freshNetns(t)
	id, err := n.ID()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Do(func() error { return os.WriteFile("/proc/sys/"+forward, []byte("1"), 0) }); err != nil {
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
	threads, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil || len(threads) == 0 {
		t.Fatal(threads, err)
	}
	inside := fmt.Sprintf("net:[%d]", id.Ino)
	for _, thread := range threads {
		if where, err := os.Readlink(thread); err == nil && where == inside { // a thread may have ended
			t.Errorf("%s has stayed in the namespace", thread)
		}
	}
	if err := n.Do(func() error { return nil }); err != nil { // is at home as well
		t.Error(err)
	}
	if value, err := os.ReadFile("/proc/sys/" + forward); err != nil || string(value) != "0\n" {
		t.Errorf("the test's own namespace: %q, %v", value, err)
	}
}

func visit(t *testing.T, n *Namespace, id ID) {
	fds, ok := n.OpenInside(nil, "", forward)
	if !ok {
		t.Error("not opened")
		return
	}
	cookie, err := unix.GetsockoptUint64(fds[0], unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	value := make([]byte, 1)
	_, verr := unix.Read(fds[1], value)
	if err := errors.Join(err, verr, unix.Close(fds[0]), unix.Close(fds[1])); err != nil {
		t.Error(err)
	}
	if cookie != id.Cookie || string(value) != "1" {
		t.Errorf("a socket of namespace %d with forwarding %s, want %d and 1", cookie, value, id.Cookie)
	}
}

// A failed OpenInside leaves nothing open, nor anything of the namespace that the thread
// came from.
func TestOpenInsideRefuses(t *testing.T) {
	lntest.Isolate(t)
	n := freshNetns(t)
	before := sockets(t)
	for _, c := range []struct {
		n    *Namespace
		path string
	}{{n, "net/none"}, {n, "a\x00b"}, {&Namespace{fd: -1, path: "gone"}, forward}} {
		if fds, ok := c.n.OpenInside(nil, "", c.path); ok {
			t.Errorf("%s %q: opened %v", c.n.path, c.path, fds)
		}
	}
	if after := sockets(t); after != before {
		t.Errorf("%d sockets and namespaces are open, before %d", after, before)
	}
}

// sockets counts the process's open sockets and network namespaces.
func sockets(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && (strings.HasPrefix(target, "socket:") || strings.HasPrefix(target, "net:")) {
			count++
		}
	}
	return count
}

// OpenInside as a plugin calls it, beside the same on a locked thread.
func BenchmarkOpenInside(b *testing.B) {
	lntest.Isolate(b)
	n, err := Current()
	if err != nil {
		b.Fatal(err)
	}
	lntest.Cold(b, map[string]func(){
		"pinned": func() {
			if _, ok := n.OpenInside(nil, "", forward); !ok {
				panic("not opened")
			}
		},
		"locked-thread": func() {
			_ = n.Do(func() error {
				_, serr := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
				_, err := unix.Open("/proc/sys/"+forward, unix.O_RDWR|unix.O_CLOEXEC, 0)
				return errors.Join(serr, err)
			})
		},
	})
}
