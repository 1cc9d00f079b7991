package bpf

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The attach types of tcx (linux/bpf.h, Linux 6.6).
const (
	tcxIngress = 46
	tcxEgress  = 47
)

type linkAttr struct {
	program, target, attachType, flags uint32
	relative, _                        uint32
	revision                           uint64
}

// Attach has a program of tc look at what comes in by a network link, or with egress at what
// leaves by it, behind the programs that are there and before the filters of qdiscs. It does so
// for as long as the descriptor is open, or pinned. It needs Linux 6.6.
func Attach(program, index int, egress bool) (fd int, err error) {
	a := linkAttr{program: uint32(program), target: uint32(index), attachType: tcxIngress}
	if egress {
		a.attachType = tcxEgress
	}
	fd, err = call(unix.BPF_LINK_CREATE, unsafe.Pointer(&a), unsafe.Sizeof(a))
	switch {
	case errors.Is(err, unix.EINVAL):
		err = fmt.Errorf("%w: programs by tcx need Linux 6.6: %w", ErrUnsupported, err)
	case errors.Is(err, unix.ERANGE):
		err = fmt.Errorf("%w: the link has as many programs by tcx as it can: %w", ErrUnsupported, err)
	}
	if err != nil {
		return -1, fmt.Errorf("attach a BPF program to link %d: %w", index, err)
	}
	return fd, nil
}

type infoAttr struct {
	fd, size uint32
	info     unsafe.Pointer
}

// Attached is the index of the network link that a descriptor of Attach is about; 0: the link is
// gone, or the program was taken off it.
func Attached(fd int) (index int, err error) {
	var info struct {
		kind, id, program, _ uint32
		index, attachType    uint32
	}
	a := infoAttr{fd: uint32(fd), size: uint32(unsafe.Sizeof(info)), info: unsafe.Pointer(&info)}
	_, err = call(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&a), unsafe.Sizeof(a))
	return int(info.index), err
}
