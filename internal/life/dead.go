package life

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/netns"
)

// Dead says whether the holder provably cannot use anything any more: it was
// made in another boot than this one, or its network namespace is gone. An unknown boot or
// namespace proves nothing, nor does a path that was opened in another mount namespace
// than the caller's: there it may name another file, or none.
func (h Holder) Dead(boot string) bool {
	if h.Boot != "" && boot != "" && h.Boot != boot {
		return true
	}
	return h.MountNS != "" && h.MountNS == MountNS() && h.gone()
}

// gone says whether the holder's network namespace is not at its path any more,
// as far as the path can be trusted.
func (h Holder) gone() bool {
	if h.Netns == "" || h.NetnsID == (NetnsID{}) {
		return false
	}
	now, err := NetnsIDOf(h.Netns)
	if errors.Is(err, model.ErrBadNetns) {
		return true
	}
	return err == nil && !now.Same(h.NetnsID)
}

// Has says whether an interface in the holder's network namespace has an
// address, or may have it: from another mount namespace there is no telling.
func (h Holder) Has(a netip.Addr) bool {
	if h.NetnsID != (NetnsID{}) && h.MountNS != "" && h.MountNS != MountNS() {
		return true
	}
	now, err := NetnsIDOf(h.Netns)
	if h.NetnsID == (NetnsID{}) || err != nil || !now.Same(h.NetnsID) {
		return false
	}
	has, err := link.HasAddr(h.Netns, a)
	return has && err == nil
}

// MountNS names the mount namespace of the calling thread, as Holder.MountNS
// does; empty if that cannot be told.
func MountNS() string {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/mnt", &st); err != nil {
		return ""
	}
	return strconv.FormatUint(st.Ino, 10)
}

// Verdicts remembers for the length of one sweep which namespaces are gone, as
// a full pool asks once for each of its leases. The zero value is ready.
type Verdicts struct {
	mu    sync.Mutex
	since time.Time
	gone  map[namespace]bool
}

// namespace is one by its path and identity.
type namespace struct {
	path, mounts string
	id           NetnsID
}

// sweep is how long a verdict holds.
const sweep = time.Second

// Dead is Holder.Dead for a holder whose boot is not known. A lease from before
// mount namespaces were noted was made by this plugin, for the runtime that
// calls it now.
func (v *Verdicts) Dead(h Holder) bool {
	if h.MountNS == "" {
		h.MountNS = MountNS()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.gone == nil || time.Since(v.since) > sweep {
		v.gone, v.since = map[namespace]bool{}, time.Now()
	}
	key := namespace{h.Netns, h.MountNS, h.NetnsID}
	gone, known := v.gone[key]
	if !known {
		gone = h.Dead("")
		v.gone[key] = gone
	}
	return gone
}

// Same compares by cookie, which is never reused within a boot, where both
// have one.
func (n NetnsID) Same(o NetnsID) bool {
	if n.Cookie != 0 && o.Cookie != 0 {
		return n.Cookie == o.Cookie
	}
	return n.Dev == o.Dev && n.Ino == o.Ino
}

// OpenNetns is netns.Open with ErrBadNetns for a path that is none.
func OpenNetns(path string) (*netns.Namespace, error) {
	ns, err := netns.Open(path)
	if errors.Is(err, netlink.ErrNotFound) || errors.Is(err, netns.ErrNotNetns) {
		err = fmt.Errorf("%w: %w", model.ErrBadNetns, err)
	}
	return ns, err
}

// NetnsIDOf returns the identity of the network namespace at path. A path that is none
// is ErrBadNetns.
func NetnsIDOf(path string) (NetnsID, error) {
	ns, err := OpenNetns(path)
	if err != nil {
		return NetnsID{}, err
	}
	id, err := ns.ID()
	return NetnsID(id), errors.Join(err, ns.Close())
}

// BootID returns the kernel's name for the running boot (random(4)).
func BootID() (string, error) { return readBootID() }

// readBootID asks the kernel once: a boot is longer than any process in it.
var readBootID = sync.OnceValues(func() (string, error) {
	const path = "/proc/sys/kernel/random/boot_id"
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	var id [64]byte
	n, err := unix.Read(fd, id[:])
	if err != nil {
		return "", &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return strings.TrimSpace(string(id[:n])), nil
})
