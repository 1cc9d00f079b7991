package fastpath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/bpf"
	"github.com/libnet-cni/libnet/internal/plain"
)

// Tunnel is what the packets of a VXLAN device have on the wire.
type Tunnel struct {
	VNI  int
	Port uint16 // of UDP
	// Uplink is the index of the link of the host's own address; 0: it is not known, and packets
	// do not go past the device.
	Uplink int
}

// key is how the packets are known.
func (t *Tunnel) key() []byte {
	k := binary.BigEndian.AppendUint32(nil, uint32(t.VNI)<<8)
	return append(binary.BigEndian.AppendUint16(k, t.Port), 0, 0)
}

// value is what is known of the device. The uplink is there twice: once if programs are attached
// to it, and once in any case.
func (t *Tunnel) value(l Link, attached bool) []byte {
	v := binary.NativeEndian.AppendUint32(nil, l.network())
	v = binary.NativeEndian.AppendUint32(v, uint32(l.Index))
	uplink := t.Uplink
	if !attached {
		uplink = 0
	}
	v = binary.NativeEndian.AppendUint32(v, uint32(uplink))
	return binary.NativeEndian.AppendUint32(v, uint32(t.Uplink))
}

// The pins of what is attached to an uplink are named by its index, and by the program; with those
// of the programs they begin alike.
const (
	uplinkPins = "uplink"
	uplinkPin  = uplinkPins + "-"
)

// sides are the programs of an uplink.
var sides = []struct {
	name, sums string
	code       []byte
	egress     bool
}{
	{"uplink_in", sumsUplinkIn, programUplinkIn, false},
	{"uplink_out", sumsUplinkOut, programUplinkOut, true},
}

func (m *maps) uplinkPin(index, side int) string {
	return filepath.Join(m.dir, fmt.Sprintf("%s%d-%s", uplinkPin, index, programPin(sides[side].name, sides[side].sums)))
}

// putTunnel has packets of a VXLAN device go past it, where the kernel can.
func (m *maps) putTunnel(l Link) error {
	tunnels, err := m.pinned(tunnelsPin, tunnelsSpec, true)
	if err != nil {
		return err
	}
	defer tunnels.Close()
	attached := l.Tunnel.Uplink != 0
	for side := range sides {
		if err == nil && attached && !m.attached(l.Tunnel.Uplink, side) {
			err = m.attachSide(l.Tunnel.Uplink, side, tunnels)
		}
	}
	if errors.Is(err, bpf.ErrUnsupported) {
		attached, err = false, nil
	}
	if err != nil {
		return err
	}
	return errors.Join(tunnels.Update(l.Tunnel.key(), l.Tunnel.value(l, attached)), m.unpin(tunnels))
}

func (m *maps) attachSide(uplink, side int, tunnels *bpf.Map) error {
	s, at := sides[side], m.uplinkPin(uplink, side)
	program, err := m.program(s.name, s.sums, s.code, append(m.all(), tunnels)...)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(program) }()
	fd, err := bpf.Attach(program, uplink, s.egress)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Unlink(at); err != nil && !errors.Is(err, unix.ENOENT) { // it was taken off
		return err
	}
	return bpf.Pin(fd, at)
}

// attached says that a program looks at the packets of an uplink.
func (m *maps) attached(uplink, side int) bool {
	fd, err := bpf.Pinned(m.uplinkPin(uplink, side))
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	index, err := bpf.Attached(fd)
	return err == nil && index == uplink
}

// verifyTunnel says what differs from what putTunnel made.
func (m *maps) verifyTunnel(l Link) error {
	tunnels, err := m.pinned(tunnelsPin, tunnelsSpec, false)
	if errors.Is(err, bpf.ErrNotFound) {
		return m.noTunnels()
	}
	if err != nil {
		return err
	}
	defer tunnels.Close()
	have := make([]byte, tunnelSize)
	switch err := tunnels.Lookup(l.Tunnel.key(), have); {
	case err == nil && string(have) == string(l.Tunnel.value(l, false)):
		return nil // the kernel cannot, or there is no uplink
	case err != nil || string(have) != string(l.Tunnel.value(l, true)):
		return fmt.Errorf("%w: the tunnel of link %d is not known to it, or as another one", ErrDifferent, l.Index)
	}
	for side, s := range sides {
		if !m.attached(l.Tunnel.Uplink, side) {
			return fmt.Errorf("%w: the program %s of link %d is missing", ErrDifferent, s.name, l.Tunnel.Uplink)
		}
	}
	return nil
}

// noTunnels says why there is no map of them.
func (m *maps) noTunnels() error {
	pins, err := plain.ReadDir(m.dir)
	for _, pin := range pins {
		if strings.HasPrefix(pin.Name(), uplinkPins) {
			return fmt.Errorf("%w: its map of tunnels is gone", ErrDifferent)
		}
	}
	return errors.Join(err, ErrEarlier)
}

// sweepTunnels forgets the tunnels that are gone, and takes the programs off uplinks of which no
// tunnel is left.
func (m *maps) sweepTunnels(there func(index int) (bool, error)) error {
	tunnels, err := m.pinned(tunnelsPin, tunnelsSpec, false)
	if errors.Is(err, bpf.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer tunnels.Close()
	gone, err := missing(tunnels, func(_, value []byte) (bool, error) {
		return there(int(binary.NativeEndian.Uint32(value[4:])))
	})
	errs := []error{err}
	for _, key := range gone {
		errs = append(errs, tunnels.Delete(key))
	}
	return errors.Join(append(errs, m.unpin(tunnels))...)
}

// unpin takes programs off uplinks that no tunnel has, and those of an earlier release.
func (m *maps) unpin(tunnels *bpf.Map) error {
	used := map[string]bool{}
	err := tunnels.Each(func(_, value []byte) {
		for side := range sides {
			used[filepath.Base(m.uplinkPin(int(binary.NativeEndian.Uint32(value[8:])), side))] = true
		}
	})
	if err != nil {
		return err
	}
	return removePins(m.dir, func(name string) bool { return strings.HasPrefix(name, uplinkPin) && !used[name] })
}
