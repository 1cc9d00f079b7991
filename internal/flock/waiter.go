package flock

import (
	"sync"

	"golang.org/x/sys/unix"
)

// wholeFile is where the lock of a whole file is.
const wholeFile = -1

// wanted is a lock that is waited for.
type wanted struct {
	dev, ino uint64
	how      int
	at       int64 // the byte, or wholeFile
}

// waiter is a thread that the kernel keeps until a lock is free: nothing else
// ends its wait.
type waiter struct {
	fd   int // which gets the lock
	done chan struct{}
	err  error // once done is closed

	alone bool // the caller has given up; guarded by abandoned.mu
	ended bool // the lock is there, or cannot be had; likewise
}

// abandoned are the waiters that are left alone. A process has one set: an agent
// asks for the same lock again and again while its holder is stopped.
var abandoned struct {
	mu  sync.Mutex
	all map[wanted][]*waiter
}

// adopt returns a waiter for the lock that was left alone; nil if there is none.
func adopt(w wanted) *waiter {
	abandoned.mu.Lock()
	defer abandoned.mu.Unlock()
	list := abandoned.all[w]
	if len(list) == 0 {
		return nil
	}
	own := list[len(list)-1]
	if abandoned.all[w] = list[:len(list)-1]; len(list) == 1 {
		delete(abandoned.all, w)
	}
	own.alone = false
	return own
}

func (r *waiter) run(take func(fd int, wait bool) error) {
	err := take(r.fd, true)
	abandoned.mu.Lock()
	defer abandoned.mu.Unlock()
	r.err, r.ended = err, true
	close(r.done)
	if r.alone {
		r.drop()
	}
}

// drop takes a waiter that has ended off the list, and frees its lock.
func (r *waiter) drop() {
	for w, list := range abandoned.all {
		for i, other := range list {
			if other != r {
				continue
			}
			if abandoned.all[w] = append(list[:i], list[i+1:]...); len(abandoned.all[w]) == 0 {
				delete(abandoned.all, w)
			}
			_ = unix.Close(r.fd)
			return
		}
	}
}

// leave gives a waiter up; false if it has ended.
func (r *waiter) leave(w wanted) bool {
	abandoned.mu.Lock()
	defer abandoned.mu.Unlock()
	if r.ended {
		return false
	}
	if abandoned.all == nil {
		abandoned.all = map[wanted][]*waiter{}
	}
	abandoned.all[w] = append(abandoned.all[w], r)
	r.alone = true
	return true
}

// handTo makes fd hold what the waiter got: the lock is the open file's, of
// which fd becomes a second descriptor in place of the first.
func (r *waiter) handTo(fd int) error {
	if r.fd == fd {
		return r.err
	}
	err := r.err
	if err == nil {
		err = again(func() error { return unix.Dup3(r.fd, fd, unix.O_CLOEXEC) })
	}
	_ = unix.Close(r.fd)
	return err
}
