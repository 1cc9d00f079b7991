package names

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bell says whether a file became readable, and asks the kernel only if it did: a poll of
// io_uring waits for it. When the file becomes readable, the kernel gives work to the thread
// that made the poll, which the thread does before it leaves whatever system call it is in, or
// enters next. So a thread that has received a packet knows of all that happened before the
// packet was sent.
//
// A bell belongs to the thread that made it. It needs Linux 5.7 and that io_uring is allowed: kernels
// before have a worker tell of the file, which may come later than the packet.
type bell struct {
	fd, of    int
	ring      []byte // what the kernel tells
	entries   []byte // what it is asked for: one request
	at        layout
	head      uint32 // of what was taken
	submitted uint32
	broken    bool // it rings always
}

// layout has the places in the ring: struct io_sqring_offsets and io_cqring_offsets.
type layout struct {
	sq struct{ head, tail, mask, entries, flags, dropped, array, resv1, user1, user2 uint32 }
	cq struct{ head, tail, mask, entries, overflow, cqes, flags, resv1, user1, user2 uint32 }
}

// ringParams is struct io_uring_params.
type ringParams struct {
	sqEntries, cqEntries, flags, thread, idle, features, wq uint32
	_                                                       [3]uint32
	at                                                      layout
}

// Of linux/io_uring.h.
const (
	featureOneMap  = 1       // IORING_FEAT_SINGLE_MMAP
	featureOwnWork = 1 << 5  // IORING_FEAT_FAST_POLL, of the release since which polls are work of the thread
	offsetEntries  = 1 << 28 // IORING_OFF_SQES, in bytes; IORING_OFF_SQ_RING is 0
	pollAdd        = 6       // IORING_OP_POLL_ADD
	submissionSize = 64      // struct io_uring_sqe
	completionSize = 16      // struct io_uring_cqe
)

// newBell returns a bell for a file.
func newBell(of int) (*bell, error) {
	var p ringParams
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring: %w", errno)
	}
	b := &bell{fd: int(fd), of: of, at: p.at}
	err := b.mapRing(p)
	if err == nil {
		err = b.wait()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("io_uring: %w", err), b.close())
	}
	return b, nil
}

func (b *bell) mapRing(p ringParams) (err error) {
	if needs := uint32(featureOneMap | featureOwnWork); p.features&needs != needs {
		return unix.EOPNOTSUPP
	}
	size := max(p.at.sq.array+4*p.sqEntries, p.at.cq.cqes+completionSize*p.cqEntries)
	const shared, both = unix.MAP_SHARED | unix.MAP_POPULATE, unix.PROT_READ | unix.PROT_WRITE
	if b.ring, err = unix.Mmap(b.fd, 0, int(size), both, shared); err != nil {
		return err
	}
	b.entries, err = unix.Mmap(b.fd, offsetEntries, int(submissionSize*p.sqEntries), both, shared)
	return err
}

func (b *bell) close() error {
	errs := []error{}
	for _, m := range [][]byte{b.ring, b.entries} {
		if m != nil {
			errs = append(errs, unix.Munmap(m))
		}
	}
	b.ring, b.entries, b.broken = nil, nil, true
	return errors.Join(append(errs, unix.Close(b.fd))...)
}

func (b *bell) word(at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&b.ring[at])) }

// wait has the kernel wait for the file, once.
func (b *bell) wait() error {
	clear(b.entries)
	b.entries[0] = pollAdd
	*(*int32)(unsafe.Pointer(&b.entries[4])) = int32(b.of)
	*(*uint16)(unsafe.Pointer(&b.entries[28])) = unix.POLLIN
	*b.word(b.at.sq.array) = 0
	b.submitted++
	atomic.StoreUint32(b.word(b.at.sq.tail), b.submitted)
	n, _, errno := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(b.fd), 1, 0, 0, 0, 0)
	switch {
	case errno != 0:
		return errno
	case n != 1:
		return unix.EAGAIN
	}
	return nil
}

// rang says whether the file became readable since the last call, or may have.
func (b *bell) rang() bool {
	if b == nil || b.broken {
		return true
	}
	tail := atomic.LoadUint32(b.word(b.at.cq.tail))
	if tail == b.head {
		return false
	}
	last := b.at.cq.cqes + completionSize*((tail-1)&*b.word(b.at.cq.mask))
	failed := *(*int32)(unsafe.Pointer(&b.ring[last+8])) < 0
	b.head = tail
	atomic.StoreUint32(b.word(b.at.cq.head), tail)
	b.broken = failed || b.wait() != nil
	return true
}
