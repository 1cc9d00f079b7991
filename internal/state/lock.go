package state

import (
	"context"
	"errors"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/flock"
)

// lockTimeout bounds the wait for the lock of a network. It is held while one
// record is written, or while the rules of an empty network are removed.
const lockTimeout = 10 * time.Second

// CreateShared is CreateEndpoint while nobody is in Alone for the network.
func (d *Dir) CreateShared(ctx context.Context, e Endpoint) error {
	unlock, err := d.lock(ctx, e.Network, unix.LOCK_SH)
	if err != nil {
		return err
	}
	defer unlock()
	return d.CreateEndpoint(e)
}

// Alone calls fn if no attachment is recorded for the network, except for the
// one of but, which may be the zero Endpoint. It keeps CreateShared waiting until
// fn returns.
func (d *Dir) Alone(ctx context.Context, network string, but Endpoint, fn func() error) error {
	if err := CheckName(network); err != nil {
		return err
	}
	own := ""
	if but.ContainerID != "" {
		own = endpointFile(but)
	}
	if has, err := d.hasEndpoint(network, own); has || err != nil {
		return err
	}
	unlock, err := d.lock(ctx, network, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	if has, err := d.hasEndpoint(network, own); has || err != nil {
		return err
	}
	return fn()
}

// Own keeps everybody else who asks for it from the attachment until release
// is called: of an ADD and a DEL that come at once, one waits. It does nothing
// for a network of which there is nothing yet, unless create is set. The error
// is flock.ErrLocked if it takes too long.
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
	return d.locked(network, func(fd int, path string) error {
		return flock.LockByte(ctx, fd, at, lockTimeout, path)
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

// What Own does where there is nothing yet.
const (
	OnlyExisting Creation = false
	Create       Creation = true
)

// HasEndpoint says whether an attachment is recorded for the network, except for
// the one of but.
func (d *Dir) HasEndpoint(network string, but Endpoint) (bool, error) {
	return d.hasEndpoint(network, endpointFile(but))
}

// hasEndpoint says whether there is an attachment whose file is not called but.
func (d *Dir) hasEndpoint(network, but string) (bool, error) {
	return d.anyEndpoint(network, func(path string) bool { return filepath.Base(path) != but })
}

// anyEndpoint says whether the file of some attachment is one. It reads no more
// of the directory than it takes to find it.
func (d *Dir) anyEndpoint(network string, one func(path string) bool) (bool, error) {
	dir, err := os.Open(d.endpointDir(network))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = dir.Close() }()
	for {
		names, _ := dir.Readdirnames(16)
		if len(names) == 0 {
			return false, nil
		}
		for _, name := range names {
			if filepath.Ext(name) == ".json" && one(filepath.Join(dir.Name(), name)) {
				return true, nil
			}
		}
	}
}

// lock takes the lock of a network.
func (d *Dir) lock(ctx context.Context, network string, how int) (unlock func(), err error) {
	return d.locked(network, func(fd int, path string) error { return flock.Lock(ctx, fd, how, lockTimeout, path) })
}

// locked opens the lock file of a network and takes a lock of it. A file that
// was removed meanwhile, with the network, protects nothing any more: then it is
// tried anew.
func (d *Dir) locked(network string, take func(fd int, path string) error) (unlock func(), err error) {
	path := d.lockFile(network)
	for {
		fd, err := openLock(path)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		if err := take(fd, path); err != nil {
			if !errors.Is(err, flock.ErrLocked) {
				_ = unix.Close(fd)
			}
			return nil, err
		}
		var held, named unix.Stat_t
		if unix.Fstat(fd, &held) == nil && unix.Lstat(path, &named) == nil && held.Ino == named.Ino && held.Dev == named.Dev {
			return func() { _ = unix.Close(fd) }, nil
		}
		_ = unix.Close(fd)
	}
}

func openLock(path string) (fd int, err error) {
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err = unix.Open(path, flags, 0o600)
	if !errors.Is(err, fs.ErrNotExist) {
		return fd, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return -1, err
	}
	return unix.Open(path, flags, 0o600)
}

func (d *Dir) lockFile(network string) string {
	return filepath.Join(d.root, "networks", network, "lock")
}
