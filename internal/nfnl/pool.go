package nfnl

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Pool keeps sockets open for later calls. Each call works in the network namespace of
// the calling thread. The zero value is ready, and may be used by many goroutines.
type Pool struct {
	mu   sync.Mutex // guards idle
	idle []*pooled
}

// maxAttempts bounds how often a call is tried that meets changes by others.
const maxAttempts = 1000

// maxIdle bounds the sockets that a Pool keeps.
const maxIdle = 8

// pooled is a socket and the network namespace it belongs to.
type pooled struct {
	conn    *Conn
	netns   netns
	bounded bool // waits end
}

// netns tells network namespaces apart: the device and inode of their file.
type netns struct{ dev, ino uint64 }

// bound has each wait for the kernel end with ctx.
func (c *pooled) bound(ctx context.Context) error {
	deadline, ok := ctx.Deadline()
	if !ok && !c.bounded {
		return nil
	}
	c.bounded = ok
	if !ok {
		return c.conn.SetTimeout(0)
	}
	return c.conn.SetTimeout(max(time.Until(deadline), time.Millisecond))
}

// Do runs fn on a socket in the thread's network namespace, again as long as fn returns
// unix.ERESTART: what it looked at changed meanwhile. Each time another one's change went
// through, so no wait is needed. The socket is fn's until it returns.
func (p *Pool) Do(ctx context.Context, fn func(*Conn) error) error {
	var err error
	for range maxAttempts {
		if err = ctx.Err(); err != nil {
			return err
		}
		if err = p.Once(ctx, fn); !errors.Is(err, unix.ERESTART) {
			return err
		}
	}
	return err
}

// Once is Do that does not run fn again.
func (p *Pool) Once(ctx context.Context, fn func(*Conn) error) error {
	c, err := p.open()
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	if err := c.bound(ctx); err != nil {
		return errors.Join(err, c.conn.Close())
	}
	err = fn(c.conn)
	if err != nil && !errors.Is(err, unix.ERESTART) {
		return errors.Join(err, c.conn.Close()) // it may hold answers that were not read
	}
	return errors.Join(err, p.keep(c))
}

// open returns a kept socket of the thread's network namespace, or a new one.
func (p *Pool) open() (*pooled, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return nil, err
	}
	here := netns{st.Dev, st.Ino}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, c := range p.idle {
		if c.netns == here {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			return c, nil
		}
	}
	conn, err := Open()
	if err != nil {
		return nil, err
	}
	return &pooled{conn: conn, netns: here}, nil
}

// keep leaves c open for later. After a transaction of nf_tables that deletes something,
// to close it now could make this call, and with it all that change rules, wait for the
// kernel to free what was deleted. Until the process ends, and with it the socket, that
// is mostly over.
func (p *Pool) keep(c *pooled) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == maxIdle {
		return c.conn.Close()
	}
	p.idle = append(p.idle, c)
	return nil
}

// Close closes the sockets that earlier calls left open; p can be used again.
// A program that ends anyway need not call it. A socket keeps its network
// namespace alive.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, c := range p.idle {
		errs = append(errs, c.conn.Close())
	}
	p.idle = nil
	return errors.Join(errs...)
}
