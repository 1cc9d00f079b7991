package state

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/flock"
	"github.com/libnet-cni/libnet/internal/plain"
)

// Guard is what one network asks of a bridge: several networks may share it, and
// one network may have had another configuration when older endpoints came.
type Guard struct {
	Network string
	ID      string // of Rules; Endpoint.Guard names it
	Backend string // of the firewall
	Tunnel  string // device that needs the guard without any endpoint; empty: none
	Spare   string `json:",omitempty"` // another one
	Rules   json.RawMessage
}

func (g Guard) file() string { return g.Network + ":" + g.ID + ".json" }

// Bridge is the guards of one bridge. Its lock is held until Unlock.
type Bridge struct {
	dir   string
	fd    int
	names []string
}

// LockBridge takes the lock of a bridge, unix.LOCK_SH or unix.LOCK_EX, and lists
// its guards. There being none is ErrNotFound unless create is set. The error is
// flock.ErrLocked if it takes too long.
func (d *Dir) LockBridge(ctx context.Context, bridge string, how int, create Creation) (*Bridge, error) {
	if err := CheckName(bridge); err != nil {
		return nil, err
	}
	dir := filepath.Join(d.root, "bridges", bridge)
	fd, err := lockDir(ctx, dir, how, create)
	if err != nil {
		return nil, err
	}
	b := &Bridge{dir: dir, fd: fd}
	if b.names, err = namesIn(fd); err != nil {
		b.Unlock()
		return nil, &fs.PathError{Op: "list", Path: dir, Err: err}
	}
	return b, nil
}

// lockDir opens a directory and takes its lock. There being none is ErrNotFound unless create
// is set.
func lockDir(ctx context.Context, dir string, how int, create Creation) (int, error) {
	for {
		fd, err := openDir(dir, create)
		if err != nil {
			return -1, err
		}
		if err := flock.Lock(ctx, fd, how, lockTimeout, dir); err != nil {
			if !errors.Is(err, flock.ErrLocked) {
				_ = unix.Close(fd)
			}
			return -1, err
		}
		if isAt(fd, dir) {
			return fd, nil
		}
		_ = unix.Close(fd) // removed meanwhile: its lock protects nothing
	}
}

func openDir(dir string, create Creation) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	for {
		fd, err := unix.Open(dir, flags, 0)
		switch {
		case err == nil:
			return fd, nil
		case !absent(err):
			return -1, &fs.PathError{Op: "open", Path: dir, Err: err}
		case !bool(create):
			return -1, ErrNotFound
		}
		if err := os.MkdirAll(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) { // it went while it was made
			return -1, err
		}
	}
}

// isAt says that an open file is the one at path.
func isAt(fd int, path string) bool {
	var held, named unix.Stat_t
	return unix.Fstat(fd, &held) == nil && unix.Lstat(path, &named) == nil && held.Ino == named.Ino && held.Dev == named.Dev
}

// namesIn lists the records in an open directory.
func namesIn(fd int) ([]string, error) {
	var all []string
	buf := make([]byte, 4096)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil || n <= 0 {
			return slices.DeleteFunc(all, func(name string) bool { return !strings.HasSuffix(name, ".json") || name[0] == '.' }), err
		}
		_, _, all = unix.ParseDirent(buf[:n], -1, all)
	}
}

// Unlock frees the lock.
func (b *Bridge) Unlock() { _ = unix.Close(b.fd) }

// Len is how many guards there were when the lock was taken.
func (b *Bridge) Len() int { return len(b.names) }

// Has says whether a guard was there when the lock was taken. Only Network and ID
// of g are looked at.
func (b *Bridge) Has(g Guard) bool { return slices.Contains(b.names, g.file()) }

// Guards reads those that were there when the lock was taken. One that cannot be
// read is set aside and reported as ErrCorrupt, beside the rest.
func (b *Bridge) Guards() ([]Guard, error) {
	var all []Guard
	var errs []error
	for _, name := range b.names {
		var g Guard
		switch err := read(filepath.Join(b.dir, name), &g); {
		case err == nil:
			all = append(all, g)
		case !errors.Is(err, ErrNotFound):
			errs = append(errs, err)
		}
	}
	return all, errors.Join(errs...)
}

// Put writes a guard. It needs the exclusive lock.
func (b *Bridge) Put(g Guard) error {
	if err := errors.Join(CheckName(g.Network), CheckName(g.ID)); err != nil {
		return err
	}
	data, err := json.Marshal(g)
	if err != nil {
		return err
	}
	return replace(filepath.Join(b.dir, g.file()), data)
}

// Delete removes a guard; missing is success. It needs the exclusive lock.
func (b *Bridge) Delete(g Guard) error {
	path := filepath.Join(b.dir, g.file())
	_ = unix.Unlink(draft(path))
	return remove(path)
}

// Remove removes the directory of a bridge that has no guard left, with the drafts
// of writers that were killed. It needs the exclusive lock: no draft in there has a
// living writer then.
func (b *Bridge) Remove() error {
	entries, err := plain.ReadDir(b.dir)
	if absent(err) {
		return nil
	}
	for _, e := range entries {
		if isDraft(e.Name()) {
			_ = unix.Unlink(filepath.Join(b.dir, e.Name()))
		}
	}
	return errors.Join(err, removeDir(b.dir))
}

// Bridges returns the names of the bridges that may have guards.
func (d *Dir) Bridges() ([]string, error) {
	entries, err := plain.ReadDir(filepath.Join(d.root, "bridges"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all, err
}

// AnyEndpoint says whether an attachment of the network is one. It reads no more
// records than it takes to find it; one that is gone meanwhile, or is no record, is
// none.
func (d *Dir) AnyEndpoint(network string, is func(Endpoint) bool) (bool, error) {
	if err := CheckName(network); err != nil {
		return false, err
	}
	return d.anyEndpoint(network, func(path string) (bool, error) {
		var e Endpoint
		err := read(path, &e)
		if errors.Is(err, ErrNotFound) || errors.Is(err, ErrCorrupt) { // deleted meanwhile, or set aside
			return false, nil
		}
		return err == nil && is(e), err
	})
}
