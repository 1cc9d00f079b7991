package kernel

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	forwardV4 = "net/ipv4/ip_forward"
	forwardV6 = "net/ipv6/conf/all/forwarding"
)

// Forward turns on IPv4 and/or IPv6 forwarding in the calling thread's
// namespace, writing only what is not already on. False leaves a family
// alone. Interfaces by which the host gets its own IPv6 from router
// advertisements keep on taking them (accept_ra 2), which is not undone. IPv6
// on a kernel without it is ErrUnsupported.
func (h *Handle) Forward(ctx context.Context, v4, v6 bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if v4 {
		if err := setSysctl(forwardV4, "1"); err != nil {
			return err
		}
	}
	if v6 {
		return h.forwardIPv6()
	}
	return nil
}

// noIPv6 says why an IPv6 sysctl can be missing.
func noIPv6(err error) error {
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("%w: IPv6 (off by the boot parameter ipv6.disable=1, or an MTU below 1280): %w", ErrUnsupported, err)
	}
	return err
}

func ipv6Conf(ifName, key string) string { return "net/ipv6/conf/" + ifName + "/" + key }

// getSysctl reads a value under /proc/sys: under net/ that of the calling
// thread's namespace. Missing is ErrNotFound.
func getSysctl(path string) (string, error) {
	fd, err := openSysctl(path, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(fd) }()
	return readSysctl(fd, path)
}

// setSysctl writes a value under /proc/sys unless it is there already, so a
// value that is right does not need a writable /proc/sys. The error names the
// key, its path, what it is and what it must be.
func setSysctl(path, value string) error {
	fd, err := openSysctl(path, unix.O_RDWR)
	if readOnly(err) {
		have, rerr := getSysctl(path)
		if rerr != nil || have == value {
			return rerr
		}
		return fmt.Errorf("sysctl %s is %s, want %s: /proc/sys/%s is %w: %w", sysctlName(path), have, value, path, ErrReadOnly, cause(err))
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return writeSysctl(fd, path, value)
}

// cause is the errno in err, whose text names the path once more.
func cause(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// readOnly says that /proc/sys refuses writers: a runtime in a sandbox mounts
// it read-only, or is not root there.
func readOnly(err error) bool {
	return errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
}

// sysctlName returns a path under /proc/sys as sysctl(8) has it: a dot in the
// name of an interface becomes a slash.
func sysctlName(path string) string {
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

// writeSysctl writes what is not there already.
func writeSysctl(fd int, path, value string) error {
	have, err := readSysctl(fd, path)
	if err != nil || have == value {
		return err
	}
	if _, err := unix.Pwrite(fd, []byte(value), 0); err != nil {
		return fmt.Errorf("set sysctl %s from %s to %s: %w", sysctlName(path), have, value, err)
	}
	return nil
}

func openSysctl(path string, mode int) (int, error) {
	fd, err := unix.Open("/proc/sys/"+path, mode|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open sysctl %s: %w", path, translate(err))
	}
	return fd, nil
}

func readSysctl(fd int, path string) (string, error) {
	var buf [64]byte
	n, err := unix.Pread(fd, buf[:], 0)
	if err != nil {
		return "", fmt.Errorf("read sysctl %s: %w", path, err)
	}
	return strings.TrimSpace(string(buf[:n])), nil
}

// sysctl is a key under net/ipv6/conf/<interface> and its value.
type sysctl struct{ key, value string }

// comfort says that an interface is as safe, and reached as well, without it:
// a link only works a moment later. Where /proc/sys is read-only it is left.
func (s sysctl) comfort() bool {
	switch s.key {
	case "accept_dad":
		return s.value == "0"
	case "forwarding": // the kernel asks "all" before it forwards
		return s.value == "1"
	case "enhanced_dad", "keep_addr_on_down", "ndisc_notify":
		return true
	}
	return false
}

// ipv6Settings are sysctls of one interface, set in their order.
type ipv6Settings struct {
	ifName string
	off    bool // IPv6 is, by one of them: what follows is of no effect
}

// set writes s. It reports false when the interface has no IPv6 at all, which
// is an error only if IPv6 is needed.
func (all *ipv6Settings) set(need bool, s sysctl) (bool, error) {
	err := setSysctl(ipv6Conf(all.ifName, s.key), s.value)
	switch {
	case err == nil:
		all.off = all.off || s.key == "disable_ipv6" && s.value == "1"
	case readOnly(err) && (all.off || s.comfort()):
	case errors.Is(err, ErrNotFound) && !need:
		return false, nil
	default:
		return false, noIPv6(err)
	}
	return true, nil
}

// setIPv6 writes ss for an interface. It reports false when the interface has
// no IPv6 at all, which is an error only if IPv6 is needed.
func setIPv6(ifName string, need bool, ss ...sysctl) (bool, error) {
	all := ipv6Settings{ifName: ifName}
	for _, s := range ss {
		if on, err := all.set(need, s); err != nil || !on {
			return false, err
		}
	}
	return true, nil
}
