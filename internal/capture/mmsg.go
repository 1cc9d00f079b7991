package capture

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// atOnce is how many packets are received, or sent, by one system call.
const atOnce = 32

// header is struct mmsghdr.
type header struct {
	unix.Msghdr
	size uint32 // of what was received
}

// messages are sent or received by one system call.
type messages struct {
	headers  [atOnce]header
	vectors  [atOnce]unix.Iovec
	peers    [atOnce]unix.RawSockaddrLinklayer
	contents [atOnce][]byte
}

// newMessages returns some with room for what is received, each of a size; 0: none.
func newMessages(size int) *messages {
	m := &messages{}
	for i := range atOnce {
		m.headers[i].Iov = &m.vectors[i]
		m.headers[i].SetIovlen(1)
		if size > 0 {
			m.set(i, make([]byte, size))
		}
	}
	return m
}

// set says what a message is, or where it goes that is received; not empty.
func (m *messages) set(i int, b []byte) {
	m.contents[i] = b
	m.vectors[i].Base = &b[0]
	m.vectors[i].SetLen(len(b))
}

// to says where a message goes that is sent from a packet socket.
func (m *messages) to(i int, peer unix.RawSockaddrLinklayer) {
	m.peers[i] = peer
	m.headers[i].Name, m.headers[i].Namelen = (*byte)(unsafe.Pointer(&m.peers[i])), unix.SizeofSockaddrLinklayer
}

// receive waits for a message, and takes those with it that are there already.
func (m *messages) receive(fd int) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m.headers[0])), atOnce, unix.MSG_WAITFORONE, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// receiveOne waits for a message and takes that one only, which costs less than by receive.
func (m *messages) receiveOne(fd int) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&m.contents[0][0])), uintptr(len(m.contents[0])), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	m.headers[0].size = uint32(n)
	return 1, nil
}

func (m *messages) received(i int) []byte { return m.contents[i][:m.headers[i].size] }

// send sends the messages from first up to last, but the last, and returns how many went:
// the error is that of the next one. It does not wait.
//
// No scheduler of Go is told of this system call, nor of those below: they take
// microseconds, as long as it takes to tell.
func (m *messages) send(fd, first, last int) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m.headers[first])), uintptr(last-first), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// sendOne sends the first message, which costs less than by send.
func (m *messages) sendOne(fd int) {
	_, _, _ = unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&m.contents[0][0])), uintptr(len(m.contents[0])), unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&m.peers[0])), unix.SizeofSockaddrLinklayer)
}

// sendToKernel sends messages of netlink.
func sendToKernel(fd int, b []byte) {
	to := unix.RawSockaddrNetlink{Family: unix.AF_NETLINK}
	_, _, _ = unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&to)), unix.SizeofSockaddrNetlink)
}
