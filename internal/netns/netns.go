package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/sentinel"
)

// ThreadPath is the calling thread's namespace. Not /proc/self: that is the
// main thread's.
const ThreadPath = "/proc/thread-self/ns/net"

// nsGetNstype is the ioctl NS_GET_NSTYPE (linux/nsfs.h, kernel 4.11).
const nsGetNstype = 0xb703

// Sentinels that this package's errors wrap; test for them with errors.Is.
var (
	// ErrNotFound: the namespace file is missing.
	ErrNotFound error = &sentinel.Error{Text: "not found"}
	// ErrExists: the name is taken by something that is not ours.
	ErrExists error = &sentinel.Error{Text: "already exists"}
	// ErrNotNetns: the file is not a network namespace.
	ErrNotNetns error = &sentinel.Error{Text: "not a network namespace"}
)

// ID identifies a network namespace. Dev and Ino are those of its nsfs
// file and are reused after it is gone; Cookie (SO_NETNS_COOKIE, kernel 5.14)
// is never reused within a boot. Cookie 0 means unknown.
type ID struct{ Dev, Ino, Cookie uint64 }

// Namespace is an open network namespace.
type Namespace struct {
	fd   int
	path string
}

// Open opens the namespace file at path. The error wraps ErrNotFound
// when there is no such file and ErrNotNetns when it is something else.
func Open(path string) (*Namespace, error) {
	// O_NONBLOCK: a path that is a FIFO must not hang us.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, fmt.Errorf("open network namespace %q: %w", path, ErrNotFound)
	}
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENAMETOOLONG) {
		err = fmt.Errorf("%w: %w", ErrNotNetns, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open network namespace %.200q: %w", path, err)
	}
	if !isNetns(fd) {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open network namespace %q: %w", path, ErrNotNetns)
	}
	return &Namespace{fd: fd, path: path}, nil
}

func isNetns(fd int) bool {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil || int64(fs.Type) != unix.NSFS_MAGIC {
		return false
	}
	typ, err := unix.IoctlRetInt(fd, nsGetNstype)
	return err == nil && typ == unix.CLONE_NEWNET
}

// Current opens the namespace of the calling thread.
func Current() (*Namespace, error) { return Open(ThreadPath) }

// IsCurrent says whether n is the namespace of the calling thread. Both are
// open while they are compared, so device and inode suffice.
func (n *Namespace) IsCurrent() (bool, error) {
	var own, st unix.Stat_t
	if err := errors.Join(unix.Stat(ThreadPath, &own), unix.Fstat(n.fd, &st)); err != nil {
		return false, fmt.Errorf("compare network namespace %q: %w", n.path, err)
	}
	return own.Dev == st.Dev && own.Ino == st.Ino, nil
}

// Create makes a network namespace with lo up and binds it to a new file
// at path. The error wraps ErrExists when path is taken. Nothing is left
// behind on failure. It needs CAP_SYS_ADMIN.
func Create(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o444)
	if err != nil {
		return fmt.Errorf("create network namespace %q: %w", path, named(err))
	}
	_ = unix.Close(fd)
	if err := onThrownThread(func() error { return bindNewNetns(path) }); err != nil {
		return errors.Join(fmt.Errorf("create network namespace %q: %w", path, err), os.Remove(path))
	}
	return nil
}

// named gives an errno of a file our sentinel.
func named(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%w: %w", ErrExists, err)
	}
	return err
}

func bindNewNetns(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := setLoUp(); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	if err := unix.Mount(ThreadPath, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

// setLoUp sets lo up in the calling thread's namespace, where it has no other flag.
func setLoUp() error {
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo)
}

// Remove unbinds and removes the file at path; missing is success. The
// namespace itself lives on while a process or an open file holds it.
func Remove(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	// EINVAL: not a mount point, as after a crash between umount and unlink.
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount network namespace %q: %w", path, err)
	}
	if err := unix.Unlink(path); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove network namespace %q: %w", path, err)
	}
	return nil
}

// ID returns the namespace's identity. It visits the namespace on a thread of
// its own to read the cookie; a kernel without cookies gives Cookie 0.
func (n *Namespace) ID() (ID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(n.fd, &st); err != nil {
		return ID{}, fmt.Errorf("stat network namespace %q: %w", n.path, err)
	}
	id := ID{Dev: uint64(st.Dev), Ino: st.Ino}
	var err error
	if id.Cookie, err = nsGetID(n.fd); err != nil {
		id.Cookie, err = n.cookie()
	}
	return id, err
}

// cookie asks a socket in the namespace; 0 from a kernel that has none.
func (n *Namespace) cookie() (cookie uint64, err error) {
	err = n.Do(func() error {
		s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("read namespace cookie: %w", err)
		}
		defer func() { _ = unix.Close(s) }()
		cookie, _ = unix.GetsockoptUint64(s, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		return nil
	})
	return cookie, err
}

// nsGetID returns the ID of an open namespace (ioctl NS_GET_ID, linux/nsfs.h),
// which for a network namespace is its cookie. Kernel 6.18.
func nsGetID(fd int) (uint64, error) {
	const nsGetID = 0x8008b70d
	var id uint64
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), nsGetID, uintptr(unsafe.Pointer(&id))); errno != 0 {
		return 0, errno
	}
	return id, nil
}

// FD returns the descriptor of the open file; it is good until Close.
func (n *Namespace) FD() int { return n.fd }

// Path returns the path the namespace was opened at.
func (n *Namespace) Path() string { return n.path }

// Close closes the open file; the namespace itself stays.
func (n *Namespace) Close() error {
	fd := n.fd
	n.fd = -1
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close network namespace %q: %w", n.path, err)
	}
	return nil
}

// returnTries bounds how often a thread tries once more to come back.
const returnTries = 3

// Do runs fn with the calling goroutine's thread in the namespace and brings
// the thread back. Goroutines that fn starts run elsewhere.
//
// A thread made for fn and thrown away, the usual way, cost a plugin 0.3 ms at
// each call. Should the way back fail, which takes the loss of CAP_SYS_ADMIN
// meanwhile, the thread stays locked to its goroutine and ends with it.
func (n *Namespace) Do(fn func() error) (err error) {
	leave, err := n.Enter()
	if err != nil {
		return err
	}
	defer func() {
		if back := leave(); back != nil {
			err = errors.Join(err, back)
		}
	}()
	return fn()
}

// Enter locks the calling goroutine to its thread and brings that into the
// namespace; leave brings it back.
func (n *Namespace) Enter() (leave func() error, err error) {
	runtime.LockOSThread()
	own, err := unix.Open(ThreadPath, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("open own network namespace: %w", err)
	}
	if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
		_ = unix.Close(own)
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("enter network namespace %q: %w", n.path, err)
	}
	return func() error { return n.leave(own) }, nil
}

// leave brings the thread back to the namespace that is open as own.
func (n *Namespace) leave(own int) error {
	defer func() { _ = unix.Close(own) }()
	back := unix.Setns(own, unix.CLONE_NEWNET)
	for try := 0; back != nil && try < returnTries; try++ { // what is to undo is to undo over there
		back = unix.Setns(own, unix.CLONE_NEWNET)
	}
	if back != nil {
		return fmt.Errorf("leave network namespace %q: %w", n.path, back)
	}
	runtime.UnlockOSThread()
	return nil
}

// onThrownThread runs fn on a locked thread that ends with it.
func onThrownThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("goroutine ended early")
		defer func() { done <- err }()
		runtime.LockOSThread() // never unlocked
		err = fn()
	}()
	return <-done
}

// OfSocket opens the namespace of a socket.
func OfSocket(socket int) (*Namespace, error) {
	fd, err := unix.IoctlRetInt(socket, unix.SIOCGSKNS)
	if err != nil {
		return nil, fmt.Errorf("open the network namespace of a socket: %w", err)
	}
	return &Namespace{fd: fd, path: "of a socket"}, nil
}
