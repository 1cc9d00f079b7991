package wireguard

import (
	"cmp"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/libnet-cni/libnet/internal/sentinel"
	"github.com/libnet-cni/libnet/internal/sorting"
)

// Errors of devices, for errors.Is.
var (
	// ErrUnsupported: the kernel has no WireGuard.
	ErrUnsupported error = &sentinel.Error{Text: "this kernel has no WireGuard"}
	// ErrNoDaemon: no wireguard-go answers for the device.
	ErrNoDaemon error = &sentinel.Error{Text: "no wireguard-go answers for the device"}
	// ErrPortInUse: something else has the UDP port.
	ErrPortInUse error = &sentinel.Error{Text: "UDP port in use"}
)

// Peer is another host as a device knows it.
type Peer struct {
	PublicKey Key
	// Endpoint is where packets for it are sent. As the kernel has it, that is from where
	// its last packet came.
	Endpoint netip.AddrPort
	// Allowed are the inner addresses that are the peer's: what goes to them is sent to
	// it, and what comes from it has to have them as its source.
	Allowed []netip.Prefix
	// Keepalive is after how many seconds without a packet an empty one is sent; 0 of a peer
	// that is wanted: whatever the device has. Given to a peer that had none, it has a
	// handshake begin at once.
	Keepalive uint16
	// Handshake is when one was completed last, in seconds since 1970; 0: never. It is only
	// read.
	Handshake int64
	// Received counts the bytes of packets that were authentic, and Sent those of all that were
	// sent, since the peer was made: of data, handshakes and keepalives. They are only read.
	Received, Sent uint64
}

// Same says that a peer has what want asks for.
func (p Peer) Same(want Peer) bool {
	return p.Endpoint == want.Endpoint && slices.Equal(sorted(p.Allowed), sorted(want.Allowed)) &&
		(want.Keepalive == 0 || p.Keepalive == want.Keepalive)
}

func sorted(all []netip.Prefix) []netip.Prefix {
	all = slices.Clone(all)
	sorting.Stable(all, netip.Prefix.Compare)
	return all
}

// State is what a device has.
type State struct {
	PrivateKey PrivateKey // zero: none
	PublicKey  Key        // that of PrivateKey; zero of wireguard-go, which does not tell it
	Port       uint16     // UDP; 0: any
	Peers      []Peer
}

// Change is what a device is to get.
type Change struct {
	PrivateKey *PrivateKey // nil: as it is
	Port       *uint16     // nil: as it is
	Set        []Peer      // are added, or get this endpoint and these addresses
	Remove     []Key       // come first: a peer that is in both is made anew
}

// Empty says that there is nothing to be done.
func (c Change) Empty() bool {
	return c.PrivateKey == nil && c.Port == nil && len(c.Set)+len(c.Remove) == 0
}

// Towards returns what a device that has s needs to become want. The public key follows from
// the private one.
func (s State) Towards(want State) (c Change) {
	if s.PrivateKey != want.PrivateKey {
		c.PrivateKey = &want.PrivateKey
	}
	if s.Port != want.Port {
		c.Port = &want.Port
	}
	have := make(map[Key]Peer, len(s.Peers))
	for _, p := range s.Peers {
		have[p.PublicKey] = p
	}
	for _, p := range want.Peers {
		if h, ok := have[p.PublicKey]; !ok || !h.Same(p) {
			c.Set = append(c.Set, p)
		}
		delete(have, p.PublicKey)
	}
	for k := range have {
		c.Remove = append(c.Remove, k)
	}
	sorting.Stable(c.Remove, func(a, b Key) int { return cmp.Compare(a.String(), b.String()) })
	return c
}

// KeyPath is where ln-agent keeps this host's private key of an epoch of a network. The file
// system is in memory: see package agent.
func KeyPath(stateDir, network string, epoch int) string {
	return filepath.Join(stateDir, "wireguard", network+"."+strconv.Itoa(epoch)+".key")
}

// Device is a WireGuard device in the network namespace of the calling thread.
type Device struct {
	Name string
	// Socket is that of the wireguard-go that has the device; empty: the kernel has it.
	Socket string
}

// SocketPath is where the wireguard-go of a device listens that ln-agent runs. It is of the
// state directory, as the hosts of a test, and the namespaces of a host, may have devices of
// one name.
func SocketPath(stateDir, device string) string {
	return filepath.Join(stateDir, "wireguard", device+".sock")
}

// Read returns what the device has.
func (d Device) Read() (State, error) {
	if d.Socket != "" {
		return d.readByText()
	}
	return d.readByNetlink()
}

// Change changes the device. The errors: ErrPortInUse, ErrNoDaemon, and what the kernel says.
func (d Device) Change(c Change) error {
	if c.Empty() {
		return nil
	}
	if d.Socket != "" {
		return d.changeByText(c)
	}
	return d.changeByNetlink(c)
}
