package ipamstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const lockFile = "lock"

// lockPool takes the lock that host-local takes, and returns the descriptor
// that holds it. It waits until the context ends or timeout has passed. If the
// directory or the lock file was replaced meanwhile, it returns errReplaced.
func lockPool(ctx context.Context, d dir, timeout time.Duration) (int, error) {
	fd, err := openAt(d.fd, lockFile, unix.O_RDONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, errReplaced // the directory was removed
	}
	if err != nil {
		return -1, d.fail("open", lockFile, err)
	}
	err = flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = waitLock(ctx, fd, timeout, filepath.Join(d.path, lockFile))
		if errors.Is(err, ErrLocked) {
			return -1, err // the waiting goroutine owns fd
		}
	}
	if err == nil {
		err = stillThere(fd, d)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// waitLock blocks in flock on a goroutine of its own, as flock knows no
// timeout. When the wait is given up that goroutine stays until the lock is
// free, and then frees it again.
func waitLock(ctx context.Context, fd int, timeout time.Duration, path string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not free within %s", timeout))
	defer cancel()
	got := make(chan error)
	go func() {
		err := flock(fd, unix.LOCK_EX)
		select {
		case got <- err:
		case <-ctx.Done():
			_ = unix.Close(fd)
		}
	}()
	select {
	case err := <-got:
		if err != nil {
			return &ioError{"lock", path, err}
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("lock %s: %w: %w%s", path, ErrLocked, context.Cause(ctx), lockHolder(path))
	}
}

var errReplaced = errors.New("directory was replaced while waiting for its lock")

// stillThere guards against a directory that was removed (a folk remedy for
// leaked leases) while we waited: that lock protects nothing any more.
func stillThere(fd int, d dir) error {
	var held, named unix.Stat_t
	if err := unix.Fstat(fd, &held); err != nil {
		return d.fail("lock", lockFile, err)
	}
	err := unix.Fstatat(d.fd, lockFile, &named, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (held.Ino != named.Ino || held.Dev != named.Dev) {
		return errReplaced
	}
	if err != nil {
		return d.fail("lock", lockFile, err)
	}
	return nil
}

// lockHolder describes who holds the lock, as the end of an error message;
// "" if that cannot be found out.
func lockHolder(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ""
	}
	file, err := os.Open("/proc/locks")
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	table, _ := io.ReadAll(io.LimitReader(file, 1<<20))
	suffix := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || f[5] != suffix {
			continue
		}
		if pid, err := strconv.Atoi(f[4]); err == nil && pid > 0 {
			return "; held by " + describe(pid)
		}
	}
	return ""
}

// describe names a process: its ID, command line and, if it is stopped, that.
func describe(pid int) string {
	out := "process " + strconv.Itoa(pid)
	if cmd, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && len(cmd) > 0 {
		cmd = bytes.ReplaceAll(bytes.TrimRight(cmd, "\x00"), []byte{0}, []byte{' '})
		out += fmt.Sprintf(" (%.80s)", cmd)
	}
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if i := bytes.LastIndexByte(stat, ')'); i >= 0 && len(stat) > i+2 && (stat[i+2] == 'T' || stat[i+2] == 't') {
		out += ", which is stopped"
	}
	return out
}

func flock(fd, how int) error {
	for {
		if err := unix.Flock(fd, how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
