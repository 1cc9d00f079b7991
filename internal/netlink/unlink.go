package netlink

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/aside"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// EndsSoon says that the process ends after its work with c, and closes its streams
// before: what has the kernel wait, another process finishes.
func (c *Conn) EndsSoon() { c.endsSoon = true }

// DeleteLink removes a link; the error wraps ErrNotFound.
//
// The kernel takes a link and its peer out of its lists, with their addresses, routes and
// bridge port, and says so (RTM_DELLINK). Its answer comes some 16 ms later, when no CPU
// can be looking at their memory any more (rcu_barrier in netdev_run_todo). Nothing else
// changes by then, so DeleteLink returns when all of the first is done, and leaves the
// second to a process, or where the caller's lives on, to a thread.
func (c *Conn) DeleteLink(index int) error {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	return c.unlink(Request(unix.RTM_DELLINK, 0, msg), index)
}

// unlink sends a request that removes at least the link with the index.
func (c *Conn) unlink(req *nl.NetlinkRequest, index int) error {
	if c.kept.Load() >= maxKept {
		return c.Change(req)
	}
	e, err := c.errand(req)
	if err != nil {
		return c.Change(req) // it only takes longer
	}
	defer e.close()
	if err := e.await(index); err != nil && !errors.Is(err, errUncertain) {
		return Translate(err)
	} else if err == nil {
		// Another holder of the RTNL may still be at work on the peer. This waits for it.
		if err := c.SetLink(index, 0, 0); errors.Is(err, ErrNotFound) {
			return nil
		}
	}
	if err := c.Change(req); !errors.Is(err, ErrNotFound) { // else it went meanwhile
		return err
	}
	return nil
}

// errand is a request that another process or thread sends, on a socket that is told of
// links that go.
type errand struct {
	socket  int
	process *aside.Process // nil: it is a thread
	read    chan struct{}  // closed when the socket is not read any more
}

// errUncertain: whether the link is gone has to be looked at.
var errUncertain error = &sentinel.Error{Text: "end of the request unknown"}

func (c *Conn) errand(req *nl.NetlinkRequest) (*errand, error) {
	c.mu.Lock()
	first := c.first
	c.mu.Unlock()
	s, err := openBeside(first)
	if err != nil {
		return nil, err
	}
	fd := s.fd
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	req.Flags |= unix.NLM_F_ACK
	req.Seq = 1
	data := req.Serialize()
	if c.endsSoon {
		p, err := aside.Send(fd, data)
		if err != nil {
			return nil, errors.Join(err, unix.Close(fd))
		}
		c.mu.Lock()
		c.aside = append(c.aside, p) // its process may be at work when we have given up
		c.mu.Unlock()
		return &errand{socket: fd, process: p}, nil
	}
	e := &errand{socket: fd, read: make(chan struct{})}
	c.kept.Add(1)
	c.threads.Go(func() {
		defer c.kept.Add(-1)
		_ = unix.Sendto(fd, data, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		<-e.read
		_ = unix.Close(fd)
	})
	return e, nil
}

// close ends the reading. The socket of a process stays open until both have ended: to
// close it is the process's to wait for.
func (e *errand) close() {
	if e.process == nil {
		close(e.read)
		return
	}
	e.process.Close()
}

// await returns when the kernel has said that the link is gone, or has answered.
func (e *errand) await(index int) error {
	end := time.Now().Add(removeBound)
	buf := make([]byte, smallSize)
	polled := []unix.PollFd{{Fd: int32(e.socket), Events: unix.POLLIN}, {Fd: -1, Events: unix.POLLIN}}
	if e.process != nil {
		polled[1].Fd = int32(e.process.FD())
	}
	for {
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("remove link %d: %w", index, unix.ETIMEDOUT)
		}
		if _, err := unix.Poll(polled, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return errUncertain
		}
		n, _, err := syscall.Recvfrom(e.socket, buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN) && polled[1].Revents != 0: // it ended, and said nothing
			return errUncertain
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case err != nil: // of what was lost it may have been a part
			return errUncertain
		}
		msgs, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			continue // longer than what tells of a link that goes
		}
		for _, m := range msgs {
			if done, err := tellsOf(m, index); done {
				return err
			}
		}
	}
}

// maxKept bounds the threads that the kernel keeps, each for 16 ms or so: a caller that
// removes links faster waits itself.
const maxKept = 64

// removeBound is how long the kernel may take until it says that a link is gone.
const removeBound = 10 * time.Second

// tellsOf says whether a message is the answer, or says that the link is gone. One of the
// family bridge says only that it is no port any more.
func tellsOf(m syscall.NetlinkMessage, index int) (bool, error) {
	switch m.Header.Type {
	case unix.NLMSG_ERROR:
		return true, answerError(m)
	case unix.RTM_DELLINK:
		if len(m.Data) < unix.SizeofIfInfomsg {
			return false, nil
		}
		info := nl.DeserializeIfInfomsg(m.Data)
		return info.Family == unix.AF_UNSPEC && int(info.Index) == index, nil
	}
	return false, nil
}
