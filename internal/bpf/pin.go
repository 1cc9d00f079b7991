package bpf

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Root is where a bpffs is mounted, by systemd or by EnsureFS.
const Root = "/sys/fs/bpf"

type objectAttr struct {
	path  unsafe.Pointer
	fd    uint32
	flags uint32
}

func object(cmd int, a objectAttr) (int, error) {
	return call(cmd, unsafe.Pointer(&a), unsafe.Sizeof(a))
}

func pathOf(path string) (unsafe.Pointer, error) {
	p, err := unix.BytePtrFromString(path)
	return unsafe.Pointer(p), err
}

// Pin gives a map or a program a name in a bpffs, by which it lives on.
func Pin(fd int, path string) error {
	p, err := pathOf(path)
	if err == nil {
		_, err = object(unix.BPF_OBJ_PIN, objectAttr{path: p, fd: uint32(fd)})
	}
	if err != nil {
		return fmt.Errorf("pin %s: %w", path, err)
	}
	return nil
}

// Pinned opens what is pinned at path; ErrNotFound if nothing is.
func Pinned(path string) (int, error) {
	p, err := pathOf(path)
	if err != nil {
		return -1, err
	}
	fd, err := object(unix.BPF_OBJ_GET, objectAttr{path: p})
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	return fd, nil
}

// PinnedMap opens the map that is pinned at path, with the sizes of s; ErrNotFound if none is.
func PinnedMap(path string, s MapSpec) (*Map, error) {
	fd, err := Pinned(path)
	if err != nil {
		return nil, err
	}
	return &Map{fd: fd, key: s.Key, value: s.Value}, nil
}

// EnsureFS mounts a bpffs at Root, if none is there.
func EnsureFS() error {
	var fs unix.Statfs_t
	err := unix.Statfs(Root, &fs)
	if err == nil && uint32(fs.Type) == unix.BPF_FS_MAGIC {
		return nil
	}
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %s is missing (CONFIG_BPF_SYSCALL), or sysfs is not mounted", ErrUnsupported, Root)
	}
	if err == nil {
		err = unix.Mount("bpf", Root, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700")
	}
	if err != nil {
		return fmt.Errorf("%w: mount a bpffs at %s: %w", ErrUnsupported, Root, err)
	}
	return nil
}
