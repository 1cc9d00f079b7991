package aside

import (
	"encoding/binary"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// The answer to what a process has sent comes by the socket that it shares with us, and
// its end by a descriptor; while Go collects garbage, signals come, and others do the same.
func TestSend(t *testing.T) {
	if !able {
		t.Skip("not on this processor")
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGUSR1)
	defer signal.Stop(signals)
	stop := make(chan struct{})
	var noise, wg sync.WaitGroup
	noise.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Kill(unix.Getpid(), unix.SIGUSR1)
				runtime.GC()
			}
		}
	})
	for range 4 {
		wg.Go(func() {
			for range 50 {
				send(t)
			}
		})
	}
	wg.Wait()
	close(stop)
	noise.Wait()
}

func send(t *testing.T) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = unix.Close(fd) }()
	request := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], unix.RTM_GETLINK)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(request[unix.SizeofNlMsghdr+4:], 1) // lo
	p, err := Send(fd, request)
	if err != nil {
		t.Error(err)
		return
	}
	defer p.Close()
	answer := make([]byte, 8<<10)
	n, err := unix.Read(fd, answer)
	if err != nil || n < unix.SizeofNlMsghdr || binary.NativeEndian.Uint16(answer[4:]) != unix.RTM_NEWLINK {
		t.Errorf("answered %d bytes (%v)", n, err)
	}
	if p.FD() < 0 {
		return // before kernel 5.2
	}
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(p.FD()), Events: unix.POLLIN}}, -1); err != nil && err != unix.EINTR {
		t.Error(err)
	}
	runtime.KeepAlive(p)
}
