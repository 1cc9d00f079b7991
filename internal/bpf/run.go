package bpf

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

type runAttr struct {
	fd, verdict         uint32
	sizeIn, sizeOut     uint32
	in, out             unsafe.Pointer
	repeat, duration    uint32
	contextIn, contextO uint32
	ctxIn, ctxOut       unsafe.Pointer
}

// Run runs a program once with a packet, which it may make longer, up to room bytes. The
// context is a struct __sk_buff, or nil.
func Run(program int, packet, context []byte, room int) (verdict int32, out []byte, err error) {
	out = make([]byte, room)
	a := runAttr{fd: uint32(program), sizeIn: uint32(len(packet)), in: unsafe.Pointer(&packet[0]), sizeOut: uint32(room), out: unsafe.Pointer(&out[0]), repeat: 1}
	if context != nil {
		a.contextIn, a.ctxIn = uint32(len(context)), unsafe.Pointer(&context[0])
	}
	if _, err := call(unix.BPF_PROG_TEST_RUN, unsafe.Pointer(&a), unsafe.Sizeof(a)); err != nil {
		return 0, nil, err
	}
	return int32(a.verdict), out[:a.sizeOut], nil
}
