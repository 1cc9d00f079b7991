package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/sentinel"
)

// Sentinels that this package's errors wrap.
var (
	// ErrUnsupported says that this kernel, or this machine, cannot do it, and what it lacks.
	ErrUnsupported error = &sentinel.Error{Text: "the kernel has no BPF for this"}
	// ErrNotFound: there is no such key, or no such pin.
	ErrNotFound error = &sentinel.Error{Text: "not found"}
	// ErrExists: the key is there.
	ErrExists error = &sentinel.Error{Text: "exists"}
	// ErrFull: a map holds as many keys as it can.
	ErrFull error = &sentinel.Error{Text: "the map is full"}
)

// Supported says why programs of this package cannot run on this machine; nil: they can, if
// the kernel has BPF.
func Supported() error {
	if unsafe.Sizeof(uintptr(0)) != 8 || binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return fmt.Errorf("%w: the program is for machines of 64 bits and little endian", ErrUnsupported)
	}
	return nil
}

// call is bpf(2). An attr has the layout of a member of union bpf_attr, and this size.
func call(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
		switch errno {
		case 0:
			return int(r), nil
		case unix.EINTR, unix.EAGAIN: // of the verifier, for a signal
			continue
		case unix.ENOSYS:
			return -1, fmt.Errorf("%w: bpf(2) is missing (CONFIG_BPF_SYSCALL): %w", ErrUnsupported, errno)
		case unix.EPERM:
			return -1, fmt.Errorf("%w: bpf(2) is not permitted: it needs CAP_BPF and CAP_NET_ADMIN (before Linux 5.8 CAP_SYS_ADMIN) in the first user namespace, and before Linux 5.11 a higher RLIMIT_MEMLOCK: %w", ErrUnsupported, errno)
		case unix.ENOENT:
			return -1, ErrNotFound
		case unix.EEXIST:
			return -1, ErrExists
		case unix.E2BIG:
			return -1, fmt.Errorf("%w: %w", ErrFull, errno)
		}
		return -1, errno
	}
}

// allocate is call for what takes memory. Before Linux 5.11 all that a map may ever have counts
// as locked memory, of which there is next to none (setrlimit(2)): the limit is lifted for the
// time of the call.
func allocate(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	fd, err := call(cmd, attr, size)
	if !errors.Is(err, unix.EPERM) {
		return fd, err
	}
	var before unix.Rlimit
	if unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}, &before) != nil {
		return fd, err
	}
	defer func() { _ = unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &before, nil) }()
	return call(cmd, attr, size)
}
