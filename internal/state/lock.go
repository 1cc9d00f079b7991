package state

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/flock"
	"github.com/libnet-cni/libnet/internal/plain"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// lockTimeout bounds the wait for a lock: of a network, which is removed meanwhile,
// of an attachment, or of a bridge, whose rules change.
const lockTimeout = 10 * time.Second

// ErrInUse says that a network has attachments, or that another process is at
// work on one.
var ErrInUse error = &sentinel.Error{Text: "network in use"}

// aloneTimeout bounds the wait of Alone for those that own an attachment.
const aloneTimeout = 2 * time.Second

// Alone calls fn, which may delete the network, while no process owns any of its
// attachments (see Own), and none is recorded. Otherwise it is ErrInUse.
func (d *Dir) Alone(ctx context.Context, network string, fn func() error) error {
	if err := CheckName(network); err != nil {
		return err
	}
	if has, err := d.hasEndpoint(network, ""); has || err != nil {
		return inUse(has, err)
	}
	return d.Quiet(ctx, network, func() error {
		if has, err := d.hasEndpoint(network, ""); has || err != nil {
			return inUse(has, err)
		}
		return fn()
	})
}

// Quiet calls fn while no process owns any attachment of the network (see Own): no ADD is
// about to write the network's record. Otherwise it is ErrInUse, after 2 s.
func (d *Dir) Quiet(ctx context.Context, network string, fn func() error) error {
	if err := CheckName(network); err != nil {
		return err
	}
	if unix.Access(filepath.Dir(d.lockFile(network)), unix.F_OK) != nil {
		return fn() // there is nothing of it
	}
	unlock, err := d.locked(network, OnlyExisting, func(fd int, path string) error {
		return flock.Lock(ctx, fd, unix.LOCK_EX, aloneTimeout, path)
	})
	if errors.Is(err, flock.ErrLocked) {
		return ErrInUse
	}
	if err != nil {
		return err
	}
	defer unlock()
	return fn()
}

func inUse(has bool, err error) error {
	if has {
		return ErrInUse
	}
	return err
}

// Own keeps every other caller from the attachment until release is called: of an
// ADD and a DEL that come at once, one waits. It also keeps the network's record
// and lock file in place (see Alone). It does nothing for a network of which there
// is nothing yet, unless create is set. The error is flock.ErrLocked if it takes
// too long.
func (d *Dir) Own(ctx context.Context, network, containerID, ifName string, create Creation) (release func(), err error) {
	if err := CheckName(network); err != nil {
		return nil, err
	}
	at := attachmentByte(containerID, ifName)
	if create == OnlyExisting {
		if err := unix.Access(filepath.Dir(d.lockFile(network)), unix.F_OK); err != nil {
			return func() {}, nil
		}
	}
	return d.locked(network, create, func(fd int, path string) error {
		if err := flock.Lock(ctx, fd, unix.LOCK_SH, lockTimeout, path); err != nil { // see Alone
			return err
		}
		return lockByte(ctx, fd, at, path)
	})
}

// attachmentByte is what owners of an attachment lock.
func attachmentByte(containerID, ifName string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(containerID + ":" + ifName))
	return int64(h.Sum64() >> 2)
}

// networkByte is what writers of a network's own record lock, above those of all
// attachments.
const networkByte = 1 << 62

// Creation says whether Own makes what it needs.
type Creation bool

// Own's ways where there is nothing yet.
const (
	OnlyExisting Creation = false
	Create       Creation = true
)

// HasEndpoint says whether an attachment is recorded for the network, except for
// the one of but.
func (d *Dir) HasEndpoint(network string, but Endpoint) (bool, error) {
	return d.hasEndpoint(network, endpointFile(but))
}

// hasEndpoint says whether there is an attachment whose file is not called but; a
// draft that a killed process left of that file is none.
func (d *Dir) hasEndpoint(network, but string) (bool, error) {
	return d.anyEndpoint(network, func(path string) (bool, error) {
		return filepath.Base(path) != but && path != draft(filepath.Join(filepath.Dir(path), but)), nil
	})
}

// anyEndpoint says whether the file of some attachment is one. It reads no more
// of the directory than it takes to find it. That it could not look is an error.
func (d *Dir) anyEndpoint(network string, one func(path string) (bool, error)) (bool, error) {
	dir, err := plain.Open(d.endpointDir(network))
	if absent(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = dir.Close() }()
	for {
		names, err := dir.Readdirnames(16)
		if errors.Is(err, io.EOF) || absent(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		for _, name := range names {
			if filepath.Ext(name) != ".json" {
				continue
			}
			if is, err := one(filepath.Join(dir.Name(), name)); is || err != nil {
				return is, err
			}
		}
	}
}

// lockByte is flock.LockByte, with less for a file that is open for reading
// only, as its file system is read-only here: it must not be locked for writing,
// and is not waited for.
func lockByte(ctx context.Context, fd int, at int64, path string) error {
	err := flock.LockByte(ctx, fd, at, lockTimeout, path)
	if !errors.Is(err, unix.EBADF) {
		return err
	}
	shared := unix.Flock_t{Type: unix.F_RDLCK, Whence: unix.SEEK_SET, Start: at, Len: 1}
	err = unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &shared)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		_ = unix.Close(fd) // as flock does
		return fmt.Errorf("lock %s: %w", path, flock.ErrLocked)
	}
	return err
}

// locked opens the lock file of a network and takes a lock of it. A file that
// was removed meanwhile, with the network, protects nothing any more: then it is
// tried anew. Without create a file that can neither be made nor opened for
// writing is no obstacle: where there is none, no record can be made, either.
func (d *Dir) locked(network string, create Creation, take func(fd int, path string) error) (unlock func(), err error) {
	path := d.lockFile(network)
	for {
		fd, err := openLock(path)
		if create == OnlyExisting && unwritable(err) {
			if fd, err = unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); absent(err) {
				return func() {}, nil
			}
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		if err := take(fd, path); err != nil {
			if !errors.Is(err, flock.ErrLocked) {
				_ = unix.Close(fd)
			}
			return nil, err
		}
		if isAt(fd, path) {
			return func() { _ = unix.Close(fd) }, nil
		}
		_ = unix.Close(fd)
	}
}

// openLock opens a lock file, made if missing, and its directory. The DEL of a
// network's last attachment removes both, so it may take more than one try.
func openLock(path string) (fd int, err error) {
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	for range tries {
		fd, err = unix.Open(path, flags, 0o600)
		if !errors.Is(err, fs.ErrNotExist) {
			return fd, err
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return -1, err
		}
	}
	return -1, err
}

// unwritable says that a directory takes nothing new.
func unwritable(err error) bool {
	return errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) ||
		errors.Is(err, unix.ENOTDIR) || errors.Is(err, fs.ErrPermission)
}

func (d *Dir) lockFile(network string) string {
	return filepath.Join(d.root, "networks", network, "lock")
}
