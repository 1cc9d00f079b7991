package overlay

import (
	"slices"

	"github.com/libnet-cni/libnet/internal/wireguard"
)

// Encryption of what goes from one host of a network to another: "wireguard", or empty for none.
type Encryption string

// FirstEpoch is that of a network whose keys have never been changed.
const FirstEpoch = 1

// EpochKey is a host's public key of an epoch, and the UDP port of its device.
type EpochKey struct {
	Epoch     int           `json:"epoch"`
	PublicKey wireguard.Key `json:"publicKey"`
	Port      uint16        `json:"port"`
}

// HostKeys is what a host says of its keys of a network, or of the way to it without a tunnel.
type HostKeys struct {
	// Keys are those by which the host can be reached now.
	Keys []EpochKey
	// Sends is the oldest epoch by which the host still sends to any other: it never takes
	// an older one again.
	Sends int
	// Direct is by what it can be reached without a tunnel, where the network is not encrypted;
	// without MACs: by none.
	Direct Link
	// Revision of the registry's entry; 0: there is none.
	Revision int64
}

// Same says that two say the same.
func (k HostKeys) Same(o HostKeys) bool {
	return k.Sends == o.Sends && slices.Equal(k.Keys, o.Keys) && k.Direct.Same(o.Direct)
}

// Newest is the newest epoch that the host has a key of; 0: none.
func (k HostKeys) Newest() (epoch int) {
	for _, one := range k.Keys {
		epoch = max(epoch, one.Epoch)
	}
	return epoch
}

// Of returns the host's key of an epoch; zero: it has none.
func (k HostKeys) Of(epoch int) EpochKey {
	for _, one := range k.Keys {
		if one.Epoch == epoch {
			return one
		}
	}
	return EpochKey{}
}

// KeyEpoch is the epoch that the keys of a network are to be of.
type KeyEpoch struct {
	Epoch    int    // FirstEpoch, or more
	By       string // host that began it; empty: none did
	Revision int64  // of the registry's entry; 0: there is none
}

// Current is the epoch that the hosts change to, or have: the one that was begun last, or that
// any of them has a key of, as when the registry was restored from an older copy.
func (s Shared) Current(hosts []Host) int {
	epoch := max(FirstEpoch, s.Epoch.Epoch)
	for _, h := range hosts {
		epoch = max(epoch, s.Keys[h.Name].Newest())
	}
	return epoch
}

// Behind names the hosts that may still send by an older epoch than this one.
func (s Shared) Behind(epoch int, hosts []Host) (names []string) {
	for _, h := range hosts {
		if s.Keys[h.Name].Sends < epoch {
			names = append(names, h.Name)
		}
	}
	return names
}

// Unsettled names the hosts that have not changed to an epoch, or have older keys still.
func (s Shared) Unsettled(epoch int, hosts []Host) (names []string) {
	for _, h := range hosts {
		if k := s.Keys[h.Name]; k.Sends < epoch || len(k.Keys) != 1 || k.Keys[0].Epoch != epoch {
			names = append(names, h.Name)
		}
	}
	return names
}
