package life

import (
	"context"

	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
)

// Holder is an owner of something and what is known of its life.
type Holder struct {
	ID      model.ID
	Boot    string // boot ID; empty: unknown
	Netns   string // path of its network namespace; empty: unknown
	NetnsID NetnsID
	// MountNS is the inode number of the mount namespace in which Netns was
	// opened, in decimal: in another one that path says nothing. Empty: unknown.
	MountNS string
	// Runtime is the program that asked for it, as WithRuntime says; empty: unknown.
	Runtime string
}

// NetnsID tells one network namespace from every other; the zero value is
// unknown.
type NetnsID struct {
	Dev, Ino uint64
	Cookie   uint64 // 0: unknown (before Linux 5.14)
}

// IDOf returns whose record it is.
func IDOf(rec state.Endpoint) model.ID {
	return model.ID{Network: rec.Network, ContainerID: rec.ContainerID, IfName: rec.IfName}
}

// OfRecord returns the holder that a record tells of.
func OfRecord(rec state.Endpoint) Holder {
	return Holder{
		ID:      IDOf(rec),
		Boot:    rec.Boot,
		Netns:   rec.Netns,
		NetnsID: NetnsID(rec.NetnsID),
		MountNS: rec.MountNS,
		Runtime: rec.Runtime,
	}
}

// WhyDead says in words why the holder's container is provably gone; empty if it
// is not (see Dead).
func (h Holder) WhyDead(boot string) string {
	switch {
	case !h.Dead(boot):
		return ""
	case h.Boot != "" && h.Boot != boot:
		return "made before the last reboot"
	}
	if _, err := NetnsIDOf(h.Netns); err != nil {
		return "its network namespace " + h.Netns + " is gone"
	}
	return "another network namespace is at " + h.Netns
}

// Links lists the links of this host by the start of their owners' names.
type Links interface {
	List(ctx context.Context, prefix string) ([]link.Owned, error)
}

// LinksOf returns the host's ends of links whose owners start so.
func LinksOf(ctx context.Context, links Links, prefix string) (map[model.ID]link.Owned, error) {
	owned, err := links.List(ctx, prefix)
	all := map[model.ID]link.Owned{}
	for _, o := range owned {
		if id, ok := model.ParseOwner(o.Owner); ok && !o.Bridge && id.Validate() == nil {
			all[id] = o
		}
	}
	return all, err
}
