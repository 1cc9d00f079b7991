package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// start starts goroutines in a container's namespace, which are joined by wg. The threads end
// with them.
func (l *servicesLab) start(wg *sync.WaitGroup, from string, n int, fn func(i int)) {
	l.t.Helper()
	ns, err := os.Open(netnsPath(from)) // they are not in the test's mount namespace
	l.check(err)
	l.t.Cleanup(func() { _ = ns.Close() })
	for i := range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			runtime.LockOSThread()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				l.t.Error(err)
				return
			}
			fn(i)
		}()
	}
}

// load opens connections out of a container to a port of an IPv4 address, so many a second, until
// stop, and counts the answers by container, and what failed. Each is a connection of its own: it is
// opened, an answer is read, and it is closed.
func (l *servicesLab) load(from, to string, perSecond int, stop <-chan struct{}) (wait func() (answers map[string]int, failed []string)) {
	l.t.Helper()
	const workers = 16
	var mu sync.Mutex
	var wg sync.WaitGroup
	answers, failed := map[string]int{}, []string{}
	var ticket atomic.Int64
	start, at := time.Now(), netip.MustParseAddrPort(to)
	l.start(&wg, from, workers, func(int) {
		got, lost := map[string]int{}, []string(nil)
		for stopped := false; !stopped; {
			select {
			case <-stop:
				stopped = true
			case <-time.After(time.Until(start.Add(time.Duration(ticket.Add(1)) * time.Second / time.Duration(perSecond)))):
				began := time.Now()
				text, err := request(at, 10*time.Second)
				if err != nil {
					lost = append(lost, fmt.Sprintf("%s after the start, for %s: %v", began.Sub(start).Round(time.Millisecond), time.Since(began).Round(time.Millisecond), err))
					continue
				}
				name, _, _ := strings.Cut(text, " ")
				got[name]++
			}
		}
		mu.Lock()
		defer mu.Unlock()
		for name, n := range got {
			answers[name] += n
		}
		failed = append(failed, lost...)
	})
	return func() (map[string]int, []string) {
		wg.Wait()
		return answers, failed
	}
}

// request opens a connection, reads an answer, and closes it, by four system calls in a thread that
// waits: a runtime that waits for many costs as much as all the rest.
func request(to netip.AddrPort, patience time.Duration) (answer string, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(fd) }()
	bound := unix.NsecToTimeval(int64(patience))
	for _, way := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, way, &bound); err != nil {
			return "", err
		}
	}
	at := unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	if err := eintr(func() error { return unix.Connect(fd, &at) }); err != nil {
		return "", fmt.Errorf("connect: %w", err)
	}
	buf, n := make([]byte, 64), 0
	err = eintr(func() (err error) { n, err = unix.Read(fd, buf); return err })
	switch {
	case err != nil:
		return "", fmt.Errorf("read: %w", err)
	case n == 0:
		return "", io.ErrUnexpectedEOF
	}
	return string(buf[:n]), nil
}

// eintr calls fn again if a signal of the Go runtime ended it.
func eintr(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Every container of a service is replaced by another one under load: each gets requests once
// it listens, and none from before DEL on; no request fails.
func TestServiceRollingReplacement(t *testing.T) {
	l := newServicesLab(t, nil)
	l.add("client", "client")
	const backends, perSecond = 5, 2000
	for i := range backends {
		l.add(fmt.Sprint("old", i), "web")
	}
	v4, _ := l.create("--start-drained")
	for i := range backends {
		l.lnctl("service", "drain", "web", fmt.Sprint("old", i), "--network", "net", "--undo")
	}
	stop := make(chan struct{})
	start := time.Now()
	wait := l.load("client", net.JoinHostPort(v4, "80"), perSecond, stop)
	for i := range backends {
		l.add(fmt.Sprint("new", i), "web") // it listens after ADD
		l.lnctl("service", "drain", "web", fmt.Sprint("new", i), "--network", "net", "--undo")
		l.lnctl("service", "drain", "web", fmt.Sprint("old", i), "--network", "net")
		time.Sleep(300 * time.Millisecond) // what a runtime gives a container to end: its last requests
		l.must(l.call(fmt.Sprint("old", i), "web").as("DEL"))
	}
	close(stop)
	answers, failed := wait()
	total := 0
	for _, n := range answers {
		total += n
	}
	t.Logf("%d requests in %v, %.0f a second, by container %v", total, time.Since(start).Round(time.Millisecond), float64(total)/time.Since(start).Seconds(), answers)
	if len(failed) > 0 {
		t.Errorf("%d requests failed, as: %s", len(failed), failed[0])
	}
	for i := range backends {
		if answers[fmt.Sprint("new", i)] == 0 {
			t.Errorf("new%d has had no request", i)
		}
	}
}

// Connections are spread by weight: χ² of seven containers, 1 to 7.
func TestServiceSpread(t *testing.T) {
	l := newServicesLab(t, nil)
	l.add("client", "client")
	const backends, connections = 7, 100000
	args := []string{"service", "update", "web", "--network", "net"}
	for i := range backends {
		l.add(fmt.Sprint("b", i), "web")
		args = append(args, "--weight", fmt.Sprintf("b%d=%d", i, i+1))
	}
	v4, _ := l.create()
	l.lnctl(args...)
	// A datagram from a port of its own is a connection; conntrack tells where it went.
	got := l.datagrams("client", v4, 80, connections)
	chi, total, weights := 0.0, 0, 0
	for i := range backends {
		total += got[fmt.Sprint("b", i)]
		weights += i + 1
	}
	for i := range backends {
		want := float64(total) * float64(i+1) / float64(weights)
		d := float64(got[fmt.Sprint("b", i)]) - want
		chi += d * d / want
	}
	t.Logf("%d connections, by container %v: χ² %.1f with 6 degrees of freedom", total, got, chi)
	if total != connections {
		t.Errorf("%d of %d datagrams came back", total, connections)
	}
	if most := 38.3; chi > most {
		t.Errorf("χ² is %.1f: more than %.1f comes once in a million", chi, most)
	}
}

// datagrams sends n datagrams from sockets of their own, and counts the answers by container.
func (l *servicesLab) datagrams(from, to string, port, n int) map[string]int {
	l.t.Helper()
	const workers = 32
	got := map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	const perAddress = 25000 // no port is used twice: conntrack would lead it where it led it before
	for i := range n / perAddress {
		l.setAddress(netnsPath(from), "eth0", fmt.Sprintf("10.60.0.%d/24", 200+i))
	}
	one := func(i int) string {
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(fmt.Sprintf("10.60.0.%d", 200+i/perAddress)), Port: 10000 + i%perAddress}}
		c, err := d.Dial("udp", net.JoinHostPort(to, fmt.Sprint(port)))
		if err != nil {
			l.t.Error(err)
			return ""
		}
		defer func() { _ = c.Close() }()
		buf := make([]byte, 64)
		_, _ = c.Write([]byte("?"))
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
		k, _ := c.Read(buf)
		name, _, _ := strings.Cut(string(buf[:k]), " ")
		return name
	}
	l.start(&wg, from, workers, func(w int) {
		for i := w; i < n; i += workers {
			name := one(i)
			for try := 0; name == "" && try < 5; try++ { // lost where a queue is full
				name = one(i)
			}
			mu.Lock()
			got[name]++
			mu.Unlock()
		}
	})
	wg.Wait()
	return got
}

// With affinity a client stays with its container, and at least 85 % of the clients of the
// others do when one goes.
func TestServiceAffinity(t *testing.T) {
	l := newServicesLab(t, nil)
	const clients, backends = 200, 5
	for i := range backends {
		l.add(fmt.Sprint("b", i), "web")
	}
	v4, _ := l.create("--affinity", "client")
	l.add("client", "client")
	for i := range clients { // addresses of one container are clients of their own
		l.setAddress(netnsPath("client"), "eth0", fmt.Sprintf("10.60.0.%d/24", 50+i))
	}
	where := func() map[string]string {
		all := map[string]string{}
		l.in(netnsPath("client"), func() {
			for i := range clients {
				addr := fmt.Sprintf("10.60.0.%d", 50+i)
				for range 3 {
					d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}, Timeout: 10 * time.Second}
					c, err := d.Dial("tcp", net.JoinHostPort(v4, "80"))
					l.check(err)
					buf := make([]byte, 64)
					n, err := c.Read(buf)
					l.check(err)
					_ = c.Close()
					name, saw, _ := strings.Cut(string(buf[:n]), " saw ")
					if saw != addr {
						l.t.Fatalf("%s is seen as %s", addr, saw)
					}
					if all[addr] != "" && all[addr] != name {
						l.t.Errorf("%s is led to %s, and then to %s", addr, all[addr], name)
					}
					all[addr] = name
				}
			}
		})
		return all
	}
	before := where()
	l.must(l.call("b2", "web").as("DEL"))
	kept, asked, used := 0, 0, map[string]bool{}
	for addr, name := range where() {
		used[name] = true
		if before[addr] != "b2" {
			asked++
			if before[addr] == name {
				kept++
			}
		}
	}
	t.Logf("%d of %d clients of the other containers stayed", kept, asked)
	if len(used) != backends-1 || kept*100 < asked*85 {
		t.Errorf("%d of %d clients of the others stayed, want 85 %%; led to %v", kept, asked, used)
	}
}
