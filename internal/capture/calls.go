package capture

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// interfaceName asks for the name of an interface by a socket.
func interfaceName(socket, index int) (string, error) {
	var request struct {
		name  [unix.IFNAMSIZ]byte
		index int32
		_     [20]byte
	}
	request.index = int32(index)
	if _, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(socket), unix.SIOCGIFNAME, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return "", errno
	}
	return unix.ByteSliceToString(request.name[:]), nil
}
