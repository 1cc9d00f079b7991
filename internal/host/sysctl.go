package host

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/procfs"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// Sysctls reads and writes files under /proc/sys: of net/ those of the calling thread's
// network namespace. The zero value does it by /proc itself.
type Sysctls struct{ proc *procfs.FS }

// GetSysctl is Get by /proc itself.
func GetSysctl(path string) (string, error) { return Sysctls{}.Get(path) }

// SetSysctl is Set by /proc itself.
func SetSysctl(path, value string) error { return Sysctls{}.Set(path, value) }

// Get reads a value. Missing is ErrNotFound.
func (s Sysctls) Get(path string) (string, error) {
	fd, err := s.open(path, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(fd) }()
	return ReadSysctl(fd, path)
}

// Set writes a value unless it is there already, so a value that is right does
// not need a writable /proc/sys. The error names the key, its path, what it is
// and what it must be.
func (s Sysctls) Set(path, value string) error {
	fd, err := s.open(path, unix.O_RDWR)
	if ReadOnly(err) {
		return s.refused(path, value, err)
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return WriteSysctl(fd, path, value)
}

// CanSet says why Set would fail, and writes nothing.
func (s Sysctls) CanSet(path, value string) error {
	fd, err := s.open(path, unix.O_RDWR)
	if ReadOnly(err) {
		return s.refused(path, value, err)
	}
	if err != nil {
		return err
	}
	_ = unix.Close(fd)
	return nil
}

// refused is the error for a value that cannot be written because of err; nil if it is
// there already.
func (s Sysctls) refused(path, value string, err error) error {
	have, rerr := s.Get(path)
	if rerr != nil || have == value {
		return rerr
	}
	return fmt.Errorf("sysctl %s is %s, want %s: /proc/sys/%s is %w: %w", SysctlName(path), have, value, path, ErrReadOnly, cause(err))
}

// cause is the errno in err, whose text names the path once more.
func cause(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// ReadOnly says that /proc/sys refuses writers: a runtime in a sandbox mounts
// it read-only, or is not root there.
func ReadOnly(err error) bool {
	return errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
}

// SysctlName returns a path under /proc/sys as sysctl(8) has it: a dot in the
// name of an interface becomes a slash.
func SysctlName(path string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '/':
			return '.'
		case '.':
			return '/'
		}
		return r
	}, path)
}

// WriteSysctl writes what is not there already.
func WriteSysctl(fd int, path, value string) error {
	have, err := ReadSysctl(fd, path)
	if err != nil || have == value {
		return err
	}
	if _, err := unix.Pwrite(fd, []byte(value), 0); err != nil {
		return fmt.Errorf("set sysctl %s from %s to %s: %w", SysctlName(path), have, value, err)
	}
	return nil
}

func (s Sysctls) open(path string, mode int) (int, error) {
	fd, err := s.proc.Open(path, mode)
	if err != nil {
		return -1, fmt.Errorf("open sysctl %s: %w", path, netlink.Translate(err))
	}
	return fd, nil
}

// ReadSysctl reads an open file under /proc/sys; path is for the error.
func ReadSysctl(fd int, path string) (string, error) {
	var buf [64]byte
	n, err := unix.Pread(fd, buf[:], 0)
	if err != nil {
		return "", fmt.Errorf("read sysctl %s: %w", path, err)
	}
	return strings.TrimSpace(string(buf[:n])), nil
}

// ErrReadOnly: a setting of the kernel is not what it has to be, and cannot
// be changed; the message names it.
var ErrReadOnly error = &sentinel.Error{Text: "not writable"}
