package cni

import (
	"encoding/json"

	"github.com/libnet-cni/libnet/pkg/libnet"
)

// Valid is the list of attachments that GC shall keep.
type Valid struct {
	// Given is false where the configuration has no list at all.
	Given bool
	ids   map[libnet.ID]bool
}

// ValidAttachments reads the list of GC. Three cases differ (spec 1.1.0,
// section 4, GC, and what libcni makes of it): no list, as `cnitool gc` sends
// it, says nothing of who lives; null or an empty one says that nobody does.
func (c *Call) ValidAttachments() (Valid, error) {
	type attachment struct {
		ContainerID string `json:"containerID"`
		IfName      string `json:"ifname"`
	}
	var keys map[string]json.RawMessage
	if err := Unmarshal(c.Stdin, &keys); err != nil {
		return Valid{}, err
	}
	raw, given := keys["cni.dev/valid-attachments"]
	if !given {
		raw, given = keys["cni.dev/attachments"] // libcni before 1.3
	}
	if !given {
		return Valid{}, nil
	}
	var list []attachment
	if err := Unmarshal(raw, &list); err != nil {
		return Valid{}, err
	}
	valid := Valid{Given: true, ids: map[libnet.ID]bool{}}
	for _, a := range list {
		valid.ids[libnet.ID{Network: c.Network, ContainerID: a.ContainerID, IfName: a.IfName}] = true
	}
	return valid, nil
}

// Empty says that the list is there and names nobody.
func (v Valid) Empty() bool { return v.Given && len(v.ids) == 0 }

// Keep says whether an attachment stays. Without a list, all do that are not
// provably dead.
func (v Valid) Keep(dead func(libnet.Holder) bool) func(libnet.Holder) bool {
	return func(h libnet.Holder) bool {
		if !v.Given {
			return !dead(h)
		}
		return v.ids[h.ID]
	}
}
