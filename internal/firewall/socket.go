package firewall

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// maxAttempts bounds how often a transaction is tried that meets changes by others.
const maxAttempts = 1000

// maxIdle bounds the sockets that a Firewall keeps.
const maxIdle = 8

// conn is a netlink socket and the network namespace it belongs to.
type conn struct {
	nl      *nfnl.Conn
	netns   netns
	bounded bool // waits end
}

// bound has each wait for the kernel end with ctx.
func (c *conn) bound(ctx context.Context) error {
	deadline, ok := ctx.Deadline()
	if !ok && !c.bounded {
		return nil
	}
	c.bounded = ok
	if !ok {
		return c.nl.SetTimeout(0)
	}
	return c.nl.SetTimeout(max(time.Until(deadline), time.Millisecond))
}

// netns tells network namespaces apart: the device and inode of their file.
type netns struct{ dev, ino uint64 }

// do runs fn on a socket in the thread's network namespace, again as long as
// fn returns ERESTART: the rules changed under it. Each time another one's
// transaction went through, so no wait is needed.
func (f *Firewall) do(ctx context.Context, fn func(*conn) error) error {
	var err error
	for range maxAttempts {
		if err = ctx.Err(); err != nil {
			return err
		}
		if err = f.once(ctx, fn); !errors.Is(err, unix.ERESTART) {
			return err
		}
	}
	return err
}

// transact sends what fill adds to a batch, which may look at the rules first:
// should they have changed by then, both are done anew.
func (f *Firewall) transact(ctx context.Context, fill func(*conn, *batch) error) error {
	return f.do(ctx, func(c *conn) error {
		generation, err := c.generation()
		if err != nil {
			return err
		}
		b := newBatch(generation)
		if err := fill(c, b); err != nil {
			return err
		}
		return c.commit(b)
	})
}

func (f *Firewall) once(ctx context.Context, fn func(*conn) error) error {
	c, err := f.open()
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	if err := c.bound(ctx); err != nil {
		return errors.Join(err, c.nl.Close())
	}
	err = fn(c)
	if err != nil && !errors.Is(err, unix.ERESTART) {
		return errors.Join(err, c.nl.Close()) // it may hold answers that were not read
	}
	return errors.Join(err, f.keep(c))
}

// open returns a kept socket of the thread's network namespace, or a new one.
func (f *Firewall) open() (*conn, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return nil, err
	}
	here := netns{st.Dev, st.Ino}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, c := range f.idle {
		if c.netns == here {
			f.idle = append(f.idle[:i], f.idle[i+1:]...)
			return c, nil
		}
	}
	nl, err := nfnl.Open()
	if err != nil {
		return nil, err
	}
	return &conn{nl: nl, netns: here}, nil
}

// keep leaves c open for later. To close it now could make this call, and with
// it all who change rules, wait for the kernel to free what was deleted (see
// commit). Until the process ends, and with it the socket, that is mostly over.
func (f *Firewall) keep(c *conn) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.idle) == maxIdle {
		return c.nl.Close()
	}
	f.idle = append(f.idle, c)
	return nil
}

// Close closes the sockets that earlier calls left open; f can be used again.
// A program that ends anyway need not call it. A socket keeps its network
// namespace alive.
func (f *Firewall) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, c := range f.idle {
		errs = append(errs, c.nl.Close())
	}
	f.idle = nil
	return errors.Join(errs...)
}
