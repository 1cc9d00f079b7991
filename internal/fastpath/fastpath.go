package fastpath

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/bpf"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// ErrDifferent says that something is not as Put made it.
var ErrDifferent error = &sentinel.Error{Text: "the fast path differs"}

// ErrEarlier says that an earlier release put a VXLAN device on the fast path, which goes past none.
var ErrEarlier error = &sentinel.Error{Text: "the fast path is that of an earlier release"}

// Link is one whose packets may go the fast way.
type Link struct {
	// Index of the host's end of a veth, or of a VXLAN device.
	Index int
	// Network is the name of the bridge.
	Network string
	// MAC of the container, whose frames alone go the fast way; nil for a VXLAN device.
	MAC []byte
	// Gateway is the MAC address of the bridge, if no container of the network is behind it;
	// nil: some are, on other hosts.
	Gateway []byte
	// Tunnel is that of a VXLAN device; nil: packets do not go past the device.
	Tunnel *Tunnel
}

// filters are the programs of links.
type filters interface {
	// Filter has a program look at the packets of a link.
	Filter(index, program int, f netlink.Filter) error
	// Filtered says whether a filter is at a link.
	Filtered(index int, f netlink.Filter) (bool, error)
}

// Path is that of the calling thread's network namespace.
type Path struct{ links filters }

// New returns the Path. It touches nothing.
func New(links filters) *Path { return &Path{links: links} }

// Programs that look at names stand before these.
const preference = 54

func filterIn() netlink.Filter { return netlink.Filter{Name: "libnet-fast-in", Preference: preference} }

func filterOut() netlink.Filter {
	return netlink.Filter{Name: "libnet-fast-out", Preference: preference, Egress: true}
}

// dir is where the pins are.
func dir() (string, error) { return bpf.NetnsDir("fast", version) }

// Put has the packets of a link go the fast way. Done again it changes what differs. The error
// wraps bpf.ErrUnsupported or netlink.ErrUnsupported if the kernel cannot.
func (p *Path) Put(ctx context.Context, l Link) error {
	m, err := open(ctx, true)
	if err != nil {
		return fmt.Errorf("fast path: %w", err)
	}
	defer m.close()
	err = m.links.Update(indexKey(l.Index), l.value())
	if err == nil {
		err = p.links.Filter(l.Index, m.out, filterOut())
	}
	if err == nil {
		err = p.links.Filter(l.Index, m.in, filterIn())
	}
	if err == nil && l.Tunnel != nil {
		err = m.putTunnel(l)
	}
	if err == nil {
		err = Changed() // flows may lead to a link in whose place this one is
	}
	if err != nil {
		return fmt.Errorf("fast path of link %d: %w", l.Index, err)
	}
	return nil
}

// Remove has the packets of a link go the slow way, before the link goes; missing is success.
// With the last link maps and programs go.
func (p *Path) Remove(ctx context.Context, index int) error {
	err := forget(ctx, func(m *maps) error {
		return errors.Join(m.links.Delete(indexKey(index)), Changed()) // what leads to it, too
	})
	if err != nil {
		return fmt.Errorf("fast path of link %d: %w", index, err)
	}
	return nil
}

// Verify changes nothing and says what differs from what Put made; such an error is
// ErrDifferent, or ErrEarlier.
func (p *Path) Verify(ctx context.Context, l Link) error {
	m, err := open(ctx, false)
	if errors.Is(err, errNone) {
		return fmt.Errorf("%w: its maps are gone", ErrDifferent)
	}
	if err != nil {
		return fmt.Errorf("fast path: %w", err)
	}
	defer m.close()
	if m.links == nil {
		return fmt.Errorf("%w: its maps are gone", ErrDifferent)
	}
	have := make([]byte, linkSize)
	if err := m.links.Lookup(indexKey(l.Index), have); err != nil || string(have) != string(l.value()) {
		return fmt.Errorf("%w: link %d is not known to it, or as another one", ErrDifferent, l.Index)
	}
	for _, f := range []netlink.Filter{filterIn(), filterOut()} {
		there, err := p.links.Filtered(l.Index, f)
		if err != nil {
			return err
		}
		if !there {
			return fmt.Errorf("%w: the filter %s of link %d is missing", ErrDifferent, f.Name, l.Index)
		}
	}
	if l.Tunnel == nil {
		return nil
	}
	return m.verifyTunnel(l)
}

// Sweep forgets the links that are gone, as those of namespaces that ended and of killed
// processes, and with the last one maps and programs.
func (p *Path) Sweep(ctx context.Context, there func(index int) (bool, error)) error {
	err := forget(ctx, func(m *maps) error {
		gone, err := missing(m.links, func(key, _ []byte) (bool, error) {
			return there(int(binary.NativeEndian.Uint32(key)))
		})
		errs := []error{err}
		for _, key := range gone {
			errs = append(errs, m.links.Delete(key))
		}
		return errors.Join(append(errs, m.sweepTunnels(there))...)
	})
	if err != nil {
		return fmt.Errorf("fast path: %w", err)
	}
	return nil
}

// missing are the keys of which there says that they are of something gone.
func missing(m *bpf.Map, there func(key, value []byte) (bool, error)) (keys [][]byte, err error) {
	var errs []error
	errs = append(errs, m.Each(func(key, value []byte) {
		has, err := there(key, value)
		if errs = append(errs, err); err == nil && !has {
			keys = append(keys, bytes.Clone(key))
		}
	}))
	return keys, errors.Join(errs...)
}

// forget has fn take links out of the map, and removes the pins if it leaves none, or if there
// is no map: a call that was killed, or that failed, left them.
func forget(ctx context.Context, fn func(*maps) error) error {
	if bpf.Supported() != nil {
		return nil // no call on this machine put one
	}
	m, err := open(ctx, false)
	switch {
	case errors.Is(err, errNone) && errors.Is(err, os.ErrNotExist):
		return bpf.RemoveRoot(bpf.Pins)
	case errors.Is(err, errNone):
		return nil
	case err != nil:
		return err
	}
	defer m.close()
	if m.links == nil {
		return removeDir(m.dir)
	}
	return errors.Join(fn(m), m.removeIfEmpty())
}

// Changed has every flow go the slow way, to be judged by rules that hold now. A host without
// a fast path is success.
func Changed() error { return set(generation) }

// Slow has every packet go the slow way for so long.
func Slow(d time.Duration) error { return set(slowUntil, d) }

// set sets a state to the time that it will be in d.
func set(state uint32, d ...time.Duration) error {
	// Each change of rules comes here, mostly on hosts that never had a pin: one system call tells.
	if err := unix.Access(bpf.Pins, unix.F_OK); errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) {
		return nil
	}
	at, err := dir()
	if err != nil {
		return err
	}
	m, err := bpf.PinnedMap(filepath.Join(at, statesPin), statesSpec)
	if errors.Is(err, bpf.ErrNotFound) || errors.Is(err, bpf.ErrUnsupported) || errors.Is(err, os.ErrPermission) {
		return nil // no links are in it; or this caller, as in a user namespace, could have put none
	}
	if err != nil {
		return err
	}
	defer m.Close()
	now := monotonic()
	for _, d := range d {
		now += uint64(d)
	}
	return m.Update(binary.NativeEndian.AppendUint32(nil, state), binary.NativeEndian.AppendUint64(nil, now))
}

// monotonic is the time of bpf_ktime_get_ns.
func monotonic() uint64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return uint64(ts.Nano())
}
