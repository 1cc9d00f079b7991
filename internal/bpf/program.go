package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An instruction has 8 bytes: code, registers, offset and a number (linux/bpf.h).
const (
	instruction = 8
	loadWide    = unix.BPF_LD | unix.BPF_IMM | unix.BPF_DW
)

type loadAttr struct {
	progType, count uint32
	instructions    unsafe.Pointer
	license         unsafe.Pointer
	logLevel        uint32
	logSize         uint32
	log             unsafe.Pointer
	kernVersion     uint32
	flags           uint32
	name            [16]byte
}

// LoadFilter loads a program of tc: code with the number of a map, counted from 0, wherever it
// has a map's descriptor. It returns the program's descriptor.
func LoadFilter(name, license string, code []byte, maps ...*Map) (int, error) {
	code = bytes.Clone(code)
	if len(code) == 0 || len(code)%instruction != 0 {
		return -1, fmt.Errorf("load BPF program %s: %d bytes: %w", name, len(code), unix.EINVAL)
	}
	for i := 0; i < len(code); i += instruction {
		if code[i] != loadWide || code[i+1]>>4 != unix.BPF_PSEUDO_MAP_FD {
			continue
		}
		n := binary.LittleEndian.Uint32(code[i+4:])
		if int(n) >= len(maps) {
			return -1, fmt.Errorf("load BPF program %s: map %d: %w", name, n, unix.EINVAL)
		}
		binary.LittleEndian.PutUint32(code[i+4:], uint32(maps[n].fd))
	}
	words := append([]byte(license), 0)
	a := loadAttr{
		progType: unix.BPF_PROG_TYPE_SCHED_CLS, count: uint32(len(code) / instruction),
		instructions: unsafe.Pointer(&code[0]), license: unsafe.Pointer(&words[0]),
	}
	copy(a.name[:15], name)
	fd, err := allocate(unix.BPF_PROG_LOAD, unsafe.Pointer(&a), unsafe.Sizeof(a))
	if err == nil {
		return fd, nil
	}
	if errors.Is(err, ErrUnsupported) {
		return -1, fmt.Errorf("load BPF program %s: %w", name, err)
	}
	return -1, fmt.Errorf("load BPF program %s: %w: the verifier of this kernel says %q: %w", name, ErrUnsupported, verdict(a), err)
}

// verdict is the verifier's last words on a program.
func verdict(a loadAttr) string {
	log := make([]byte, 1<<20)
	a.logLevel, a.logSize, a.log = 1, uint32(len(log)), unsafe.Pointer(&log[0])
	if fd, err := call(unix.BPF_PROG_LOAD, unsafe.Pointer(&a), unsafe.Sizeof(a)); err == nil {
		_ = unix.Close(fd)
		return "nothing, the second time"
	}
	log = bytes.TrimSpace(log[:max(0, bytes.IndexByte(log, 0))])
	return string(log[max(0, len(log)-300):])
}
