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
// alone. IPv6 on a kernel without it is ErrUnsupported.
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
		if err := setSysctl(forwardV6, "1"); err != nil {
			return noIPv6(err)
		}
	}
	return nil
}

// Forwarding reports whether IPv4 and IPv6 forwarding are on in the calling
// thread's namespace. A kernel without IPv6 reports false.
func (h *Handle) Forwarding() (v4, v6 bool, err error) {
	s4, err := getSysctl(forwardV4)
	if err != nil {
		return false, false, err
	}
	s6, err := getSysctl(forwardV6)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, false, err
	}
	return s4 == "1", s6 == "1", nil
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
// value that is right does not need a writable /proc/sys.
func setSysctl(path, value string) error {
	fd, err := openSysctl(path, unix.O_RDWR)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		if have, rerr := getSysctl(path); rerr == nil && have == value {
			return nil
		}
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return writeSysctl(fd, path, value)
}

// writeSysctl writes what is not there already.
func writeSysctl(fd int, path, value string) error {
	have, err := readSysctl(fd, path)
	if err != nil || have == value {
		return err
	}
	if _, err := unix.Pwrite(fd, []byte(value), 0); err != nil {
		return fmt.Errorf("set sysctl %s to %s: %w", path, value, err)
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

// setIPv6 writes ss for an interface. It reports false when the interface has
// no IPv6 at all, which is an error only if IPv6 is needed.
func setIPv6(ifName string, need bool, ss ...sysctl) (bool, error) {
	for _, s := range ss {
		err := setSysctl(ipv6Conf(ifName, s.key), s.value)
		switch {
		case err == nil:
		case errors.Is(err, ErrNotFound) && !need:
			return false, nil
		default:
			return false, noIPv6(err)
		}
	}
	return true, nil
}
