package state

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/flock"
)

// Held is a lock that a child process can inherit: as long as the child, or one
// of its own children, has the file open, the lock is held, also if the process
// that took it was killed.
type Held struct {
	file *os.File
	undo func()
}

// File is what the child process inherits.
func (h *Held) File() *os.File { return h.file }

// Release gives the lock back, also where a child process that has ended left the
// file open in one of its own.
func (h *Held) Release() { h.undo() }

// OwnForChild is Own by a lock that a child process can inherit.
func (d *Dir) OwnForChild(ctx context.Context, network, containerID, ifName string, create Creation) (*Held, error) {
	if err := CheckName(network); err != nil {
		return nil, err
	}
	at := attachmentByte(containerID, ifName)
	return d.hold(network, create, func(fd int, path string) error {
		if err := flock.Lock(ctx, fd, unix.LOCK_SH, lockTimeout, path); err != nil { // see Alone
			return err
		}
		return flock.LockByte(ctx, fd, at, lockTimeout, path)
	}, at)
}

// QuietForChild keeps every caller of Own and OwnForChild of the network waiting,
// by a lock that a child process can inherit. The error is flock.ErrLocked while
// another process owns an attachment.
func (d *Dir) QuietForChild(ctx context.Context, network string) (*Held, error) {
	if err := CheckName(network); err != nil {
		return nil, err
	}
	return d.hold(network, OnlyExisting, func(fd int, path string) error {
		return flock.Lock(ctx, fd, unix.LOCK_EX, aloneTimeout, path)
	}, -1)
}

func (d *Dir) hold(network string, create Creation, take func(fd int, path string) error, at int64) (*Held, error) {
	var h Held
	unlock, err := d.locked(network, create, func(fd int, path string) error {
		if err := take(fd, path); err != nil {
			return err
		}
		copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if h.file != nil { // the network was removed, and this is the next try
			_ = h.file.Close()
		}
		h.file = os.NewFile(uintptr(copied), path)
		return nil
	})
	if err != nil {
		if h.file != nil {
			_ = h.file.Close()
		}
		return nil, err
	}
	h.undo = func() {
		if at >= 0 {
			free := unix.Flock_t{Type: unix.F_UNLCK, Whence: unix.SEEK_SET, Start: at, Len: 1}
			_ = unix.FcntlFlock(h.file.Fd(), unix.F_OFD_SETLK, &free)
		}
		_ = unix.Flock(int(h.file.Fd()), unix.LOCK_UN)
		_ = h.file.Close()
		if unlock != nil {
			unlock()
		}
	}
	return &h, nil
}
