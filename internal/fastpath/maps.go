package fastpath

import (
	"context"
	_ "embed" // of the programs
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/bpf"
	"github.com/libnet-cni/libnet/internal/plain"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// The layout of keys and values is that of program/flow.h. A change of it needs another
// version: programs of an earlier release go on with their own maps. Another map needs none.
const (
	version    = 1
	linkSize   = 20
	keySize    = 48
	flowSize   = 64
	wireSize   = 128
	tunnelKey  = 8
	tunnelSize = 16

	kindVeth, kindTunnel  = 1, 2
	generation, slowUntil = 0, 1

	// mostLinks and so on are how many there is room for: of flows, and their ways on uplinks, the
	// one that is used least gives way.
	mostLinks, mostFlows, mostWires, mostTunnels = 1 << 14, 1 << 15, 1 << 14, 1 << 12
)

var (
	linksSpec  = bpf.MapSpec{Name: "ln_links", Type: unix.BPF_MAP_TYPE_HASH, Key: 4, Value: linkSize, Most: mostLinks, AllocateByNeed: true}
	statesSpec = bpf.MapSpec{Name: "ln_states", Type: unix.BPF_MAP_TYPE_ARRAY, Key: 4, Value: 8, Most: 2}
	flowsSpec  = bpf.MapSpec{Name: "ln_flows", Type: unix.BPF_MAP_TYPE_LRU_HASH, Key: keySize, Value: flowSize, Most: mostFlows}
	wiresSpec  = bpf.MapSpec{Name: "ln_wires", Type: unix.BPF_MAP_TYPE_LRU_HASH, Key: keySize, Value: wireSize, Most: mostWires}

	tunnelsSpec = bpf.MapSpec{Name: "ln_tunnels", Type: unix.BPF_MAP_TYPE_HASH, Key: tunnelKey, Value: tunnelSize, Most: mostTunnels, AllocateByNeed: true}
)

// The programs that the sources in program describe, with their hashes; see make bpf.
var (
	//go:embed program/in.bin
	programIn []byte
	//go:embed program/out.bin
	programOut []byte
	//go:embed program/uplink_in.bin
	programUplinkIn []byte
	//go:embed program/uplink_out.bin
	programUplinkOut []byte
	//go:embed program/in.sum
	sumsIn string
	//go:embed program/out.sum
	sumsOut string
	//go:embed program/uplink_in.sum
	sumsUplinkIn string
	//go:embed program/uplink_out.sum
	sumsUplinkOut string
)

// license lets the programs call all helpers that they call: none is for GPL only.
const license = "Apache-2.0"

const (
	statesPin  = "states"
	tunnelsPin = "tunnels"
)

func indexKey(index int) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(index)) }

// network is how maps name the network.
func (l Link) network() uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(l.Network))
	return h.Sum32()
}

func (l Link) value() []byte {
	v := binary.NativeEndian.AppendUint32(nil, l.network())
	kind := uint16(kindVeth)
	if l.MAC == nil {
		kind = kindTunnel
	}
	v = binary.NativeEndian.AppendUint16(v, kind)
	v = append(v, make([]byte, linkSize-len(v))...)
	copy(v[6:12], l.MAC)
	copy(v[12:18], l.Gateway)
	return v
}

// maps are open, and locked.
type maps struct {
	dir           string
	lock, in, out int
	links         *bpf.Map // nil: it is missing

	states, flows, wires *bpf.Map // nil unless they are to be made
}

// all are the maps by the numbers that programs have of them.
func (m *maps) all() []*bpf.Map { return []*bpf.Map{m.links, m.states, m.flows, m.wires} }

// errNone says that there is no directory of pins, or none that this caller may see.
var errNone error = &sentinel.Error{Text: "there is no fast path"}

// open opens and locks what is pinned; errNone if there is no directory of it. With create it
// makes what is missing.
func open(ctx context.Context, create bool) (_ *maps, err error) {
	if err := bpf.Supported(); err != nil {
		return nil, err
	}
	at, err := dir()
	if err != nil {
		return nil, err
	}
	m := &maps{dir: at, lock: -1, in: -1, out: -1}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	m.lock, err = bpf.LockDir(ctx, at, create)
	switch {
	case err == nil:
	case errors.Is(err, os.ErrPermission) && create:
		return nil, fmt.Errorf("%w: %w", bpf.ErrUnsupported, err)
	case (errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EACCES)) && !create:
		return nil, fmt.Errorf("%w: %w", errNone, err)
	default:
		return nil, err
	}
	return m, m.load(create)
}

// load opens the maps and the programs, or with create makes them.
func (m *maps) load(create bool) (err error) {
	m.links, err = m.pinned("links", linksSpec, create)
	if errors.Is(err, bpf.ErrNotFound) { // see forget
		return nil
	}
	if err != nil || !create {
		return err
	}
	for _, have := range []struct {
		at   **bpf.Map
		pin  string
		spec bpf.MapSpec
	}{{&m.states, statesPin, statesSpec}, {&m.flows, "flows", flowsSpec}, {&m.wires, "wires", wiresSpec}} {
		if *have.at, err = m.pinned(have.pin, have.spec, true); err != nil {
			return err
		}
	}
	if m.in, err = m.program("in", sumsIn, programIn, m.all()...); err != nil {
		return err
	}
	m.out, err = m.program("out", sumsOut, programOut, m.all()...)
	return err
}

// pinned opens a map, or with create makes it. Then programs that are pinned work with the one
// before it: they are to be loaded anew.
func (m *maps) pinned(name string, s bpf.MapSpec, create bool) (*bpf.Map, error) {
	path := filepath.Join(m.dir, name)
	have, err := bpf.PinnedMap(path, s)
	if !errors.Is(err, bpf.ErrNotFound) || !create {
		return have, err
	}
	err = removePins(m.dir, func(pin string) bool {
		return isProgram(pin) && (name != tunnelsPin || strings.HasPrefix(pin, uplinkPins))
	})
	if err != nil {
		return nil, err
	}
	return bpf.MakePinned(path, s)
}

// program opens a program of this release, or loads it: links keep the one that they came with.
func (m *maps) program(name, sums string, code []byte, maps ...*bpf.Map) (int, error) {
	path := filepath.Join(m.dir, programPin(name, sums))
	return bpf.Program(path, func() (int, error) { return bpf.LoadFilter("ln_fast_"+name, license, code, maps...) })
}

// programPin is how a program of this release is pinned.
func programPin(name, sums string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(sums))
	return fmt.Sprintf("%s-%016x", name, h.Sum64())
}

// removeIfEmpty removes the pins if no link is in the map. Programs of links that are still
// there go with the links.
func (m *maps) removeIfEmpty() error {
	if empty, err := m.links.Empty(); !empty || err != nil {
		return err
	}
	return removeDir(m.dir)
}

// isProgram says that a pin is one of a program, or of what is attached to an uplink.
func isProgram(pin string) bool { return strings.Contains(pin, "-") }

// removePins removes some of the pins.
func removePins(dir string, which func(name string) bool) error {
	pins, err := plain.ReadDir(dir)
	errs := []error{err}
	for _, pin := range pins {
		if which(pin.Name()) {
			errs = append(errs, unix.Unlink(filepath.Join(dir, pin.Name())))
		}
	}
	return errors.Join(errs...)
}

// removeDir removes the pins: programs, also those of an earlier release, before the maps that they
// are bound to. After a kill no program is left that works on a map which has no pin any more.
func removeDir(dir string) error {
	err := errors.Join(removePins(dir, isProgram), removePins(dir, func(string) bool { return true }))
	return errors.Join(err, unix.Rmdir(dir), bpf.RemoveRoot(filepath.Dir(dir)))
}

// close unlocks.
func (m *maps) close() {
	for _, have := range m.all() {
		if have != nil {
			have.Close()
		}
	}
	for _, fd := range []int{m.in, m.out, m.lock} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}
