package ipamstore

import (
	"errors"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/pooldir"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

const (
	leaseLimit   = 1024 // bytes of a lease file
	cursorPrefix = "last_reserved_ip."
	draftsKept   = 2 // released lease files kept to be used again
)

// fileKind says what a file named by an address is.
type fileKind int

const (
	fileMissing fileKind = iota
	fileLease            // held by an owner
	fileGarbage          // a regular file that names no owner
	fileBarrier          // something else, which is not ours to remove
)

// readLease reads the lease file of an address.
func readLease(d pooldir.Dir, name string) (kind fileKind, l leaseFile) {
	data, st, err := d.Read(name, leaseLimit+1)
	l.since = st.Mtim.Nano()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fileMissing, l
	case errors.Is(err, unix.ELOOP):
		l.problem = "is a symbolic link"
		return fileBarrier, l
	case err != nil:
		l.problem = "cannot be read: " + err.Error()
		return fileBarrier, l
	}
	if l.owner, l.problem = parseLease(data); l.problem != "" {
		return fileGarbage, l
	}
	return fileLease, l
}

// leaseFile is what a lease file tells.
type leaseFile struct {
	owner   Owner
	since   int64
	problem string
}

// parseLease reads what host-local writes: the container ID, a line break, the
// interface. Early releases wrote the ID only.
func parseLease(data []byte) (Owner, string) {
	if len(data) > leaseLimit {
		return Owner{}, "is too large for a lease"
	}
	text := strings.TrimSpace(string(data))
	if text == "" {
		return Owner{}, "is empty"
	}
	id, ifName, _ := strings.Cut(text, "\n")
	o := Owner{strings.TrimSpace(id), strings.TrimSpace(ifName)}
	if !printable(o.ContainerID) || !printable(o.IfName) {
		return Owner{}, "is not a lease"
	}
	return o, ""
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func leaseText(o Owner) []byte { return []byte(o.ContainerID + "\r\n" + o.IfName) }

// check says what is wrong with an owner; a lease file must be able to hold it.
func (o Owner) check() string {
	switch {
	case o.ContainerID == "":
		return "container ID is empty"
	case o.ContainerID != strings.TrimSpace(o.ContainerID) || o.IfName != strings.TrimSpace(o.IfName):
		return "space around container ID or interface"
	case !printable(o.ContainerID) || !printable(o.IfName):
		return "control character in container ID or interface"
	case len(leaseText(o)) > leaseLimit:
		return "container ID and interface are too long"
	}
	return ""
}

func draftFile(set int) string { return "tmp." + strconv.Itoa(set) }

// draft writes a lease file in the index, where no reader takes it for one. If a
// released lease lies there its inode is used again: making and removing many
// files is slow, on ext4 much slower than renaming them.
func (x *session) draft(set int, o Owner) (since int64, err error) {
	name := draftFile(set)
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_NONBLOCK
	fd, err := pooldir.OpenAt(x.idx.Fd, name, flags)
	if err != nil {
		return 0, x.idx.Fail("write", name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err == nil && (st.Nlink != 1 || st.Mode&0o777 != 0o600) {
		// Another program keeps a second name of it: leave that alone.
		_ = unix.Close(fd)
		if err := x.idx.Remove(name); err != nil {
			return 0, err
		}
		if fd, err = pooldir.OpenAt(x.idx.Fd, name, flags|unix.O_EXCL); err != nil {
			return 0, x.idx.Fail("write", name, err)
		}
	}
	if err = x.write(fd, o); err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return 0, x.idx.Fail("write", name, err)
	}
	return st.Mtim.Nano(), nil
}

// write makes an open file the lease file of o.
func (x *session) write(fd int, o Owner) error {
	text := leaseText(o)
	if err := pooldir.WriteAt(fd, text, 0); err != nil {
		return err
	}
	if err := unix.Ftruncate(fd, int64(len(text))); err != nil {
		return err
	}
	if x.s.conf.RebootPolicy == RebootKeep {
		return unix.Fsync(fd)
	}
	return nil
}

// unlease removes the lease file of an address, or keeps it as draft n.
func (x *session) unlease(a netip.Addr, n int) error {
	name := a.String()
	if x.indexed && n < draftsKept && x.s.conf.RebootPolicy == RebootRelease &&
		unix.Renameat(x.dir.Fd, name, x.idx.Fd, draftFile(n)) == nil {
		return nil
	}
	return x.dir.Remove(name)
}

// publish gives the draft its name in the pool, so that no lease file is ever
// seen half written. It returns errStale if there is a lease already.
func (x *session) publish(set int, l leased, o Owner) error {
	name := l.addr.String()
	for range 2 {
		err := unix.Renameat2(x.idx.Fd, draftFile(set), x.dir.Fd, name, unix.RENAME_NOREPLACE)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOTSUP):
			err = errors.Join(x.create(name, o, l.since), x.idx.Remove(draftFile(set)))
			if !errors.Is(err, fs.ErrExist) {
				return err
			}
		case !errors.Is(err, fs.ErrExist):
			return x.dir.Fail("write", name, err)
		}
		if kind, _ := readLease(x.dir, name); kind != fileGarbage {
			return errStale
		}
		if err := x.dir.Remove(name); err != nil {
			return err
		}
		x.state.problems = max(0, x.state.problems-1)
	}
	return errStale
}

// create writes a lease file in place, where renaming is not possible: the
// pool is a mount of its own, or of a simple file system. A crash may leave a part of it,
// which the next caller that needs the address removes.
func (x *session) create(name string, o Owner, since int64) error {
	fd, err := pooldir.OpenAt(x.dir.Fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW)
	if err != nil {
		return x.dir.Fail("write", name, err)
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(since)}
	if err := errors.Join(x.write(fd, o), unix.Close(fd), unix.UtimesNanoAt(x.dir.Fd, name, times, unix.AT_SYMLINK_NOFOLLOW)); err != nil {
		return errors.Join(x.dir.Fail("write", name, err), x.dir.Remove(name))
	}
	return nil
}

// errStale says that the index is not what the directory is.
var errStale error = &sentinel.Error{Text: "index is out of date"}

// cursor returns the address leased last out of a set; the zero Addr if that
// is not known.
func (x *session) cursor(set int) netip.Addr {
	data, _, err := x.dir.Read(cursorPrefix+strconv.Itoa(set), 64)
	if err != nil {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(strings.TrimSpace(string(data)))
	return a.Unmap()
}

// setCursor records the address leased last. The file is overwritten, not
// truncated first: file systems answer that by writing to disk at once. One that
// has a second name is another's file, too, and is left to that.
func (x *session) setCursor(set int, a netip.Addr) error {
	name := cursorPrefix + strconv.Itoa(set)
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_NONBLOCK
	fd, err := pooldir.OpenAt(x.dir.Fd, name, flags)
	if err != nil {
		return x.dir.Fail("write", name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err == nil && st.Nlink != 1 {
		_ = unix.Close(fd)
		if err := x.dir.Remove(name); err != nil {
			return err
		}
		if fd, err = pooldir.OpenAt(x.dir.Fd, name, flags|unix.O_EXCL); err != nil {
			return x.dir.Fail("write", name, err)
		}
		st.Size = 0
	}
	text := []byte(a.String())
	err = pooldir.WriteAt(fd, text, 0)
	if err == nil && st.Size > int64(len(text)) {
		err = unix.Ftruncate(fd, int64(len(text)))
	}
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return x.dir.Fail("write", name, err)
	}
	return nil
}
