package kubernetes

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/overlay"
)

// announcementVersion is the newest format of OverlayAnnotation.
const announcementVersion = 1

// announcement is what an agent says of its host.
type announcement struct {
	Version  int                `json:"version"`
	Address  netip.Addr         `json:"address"`
	Agent    string             `json:"agent,omitempty"` // its version
	Networks map[string]network `json:"networks"`
}

// network is a network as a host has it configured, and its keys of it.
type network struct {
	Subnets    []netip.Prefix     `json:"subnets"`
	BlockSize  blockSize          `json:"blockSize"`
	VNI        int                `json:"vni"`
	Port       int                `json:"port"`
	Encryption overlay.Encryption `json:"encryption,omitempty"`
	// Epoch is the one that this host began last; 0: none.
	Epoch int                `json:"epoch,omitempty"`
	Keys  []overlay.EpochKey `json:"keys,omitempty"`
	Sends int                `json:"sends,omitempty"`
	// Direct is by what the host can be reached without a tunnel; nil: by none.
	Direct *overlay.Link `json:"direct,omitempty"`
}

type blockSize struct {
	IPv4 int `json:"ipv4"`
	IPv6 int `json:"ipv6"`
}

// decode reads an annotation; an empty one says nothing.
func decode(text string) (a announcement, err error) {
	if text == "" {
		return a, nil
	}
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return announcement{}, err
	}
	if a.Version != announcementVersion {
		return announcement{}, fmt.Errorf("version %d: want %d; is that node's ln-agent newer than this one?", a.Version, announcementVersion)
	}
	return a, nil
}

func (a announcement) encode() (string, error) {
	a.Version = announcementVersion
	data, err := json.Marshal(a)
	return string(data), err
}

// clone returns a copy whose networks may be changed.
func (a announcement) clone() announcement {
	if a.Networks = maps.Clone(a.Networks); a.Networks == nil {
		a.Networks = map[string]network{}
	}
	return a
}

// setTerms keeps what is said of keys.
func (n *network) setTerms(t overlay.Terms) {
	n.Subnets, n.BlockSize, n.VNI, n.Port, n.Encryption = t.Subnets, blockSize(t.Size), t.VNI, t.Port, t.Encryption
}

// terms are those of a network as a host has them.
func (n network) terms(host string, at netip.Addr) overlay.Terms {
	return overlay.Terms{
		Subnets: n.Subnets, Size: overlay.BlockSize(n.BlockSize), VNI: n.VNI, Port: n.Port, IPv6: at.Is6(), Encryption: n.Encryption, By: host,
	}
}

// overlaps says that two networks have addresses in common, so that a podCIDR could be of both.
func (n network) overlaps(subnets []netip.Prefix) bool {
	return slices.ContainsFunc(n.Subnets, func(s netip.Prefix) bool { return slices.ContainsFunc(subnets, s.Overlaps) })
}
