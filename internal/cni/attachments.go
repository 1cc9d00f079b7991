package cni

import (
	"os"
	"strconv"
	"strings"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
)

// Valid is the list of attachments that GC shall keep.
type Valid struct {
	// Given is false where the configuration has no list at all.
	Given bool
	ids   map[model.ID]bool
}

// ValidAttachments reads the list of GC. Three cases differ (spec 1.1.0,
// section 4, GC, and what libcni makes of it): no list, as `cnitool gc` sends
// it, does not say which attachments live; null or an empty list says that none does.
func (c *Call) ValidAttachments() (Valid, error) {
	key := "cni.dev/valid-attachments"
	if !c.Conf.Has(key) {
		key = "cni.dev/attachments" // libcni before 1.3
	}
	if !c.Conf.Has(key) {
		return Valid{}, nil
	}
	valid := Valid{Given: true, ids: map[model.ID]bool{}}
	for _, item := range c.Conf.At(key).Items() {
		id, o := model.ID{Network: c.Network}, item.Object()
		o.String("containerID", &id.ContainerID)
		o.String("ifname", &id.IfName)
		valid.ids[id] = true
	}
	return valid, c.Conf.Err()
}

// Empty says that the list is there and names no attachment.
func (v Valid) Empty() bool { return v.Given && len(v.ids) == 0 }

// Keep says whether an attachment stays. Without a list, all do that are not
// provably dead. With one, so do those of another runtime than the caller: it
// shares the network, and its containers are on a list of its own.
func (v Valid) Keep(dead func(engine.Holder) bool, caller string) func(engine.Holder) bool {
	return func(h engine.Holder) bool {
		if !v.Given || h.Runtime != "" && caller != "" && h.Runtime != caller {
			return !dead(h)
		}
		return v.ids[h.ID]
	}
}

// Runtime returns the program that made the call, "/usr/bin/containerd"; empty
// if it cannot be told. The runtime starts plugins itself (spec 1.1.0, section 3).
func Runtime() string {
	name, _ := os.Readlink("/proc/" + strconv.Itoa(os.Getppid()) + "/exe")
	return strings.TrimSuffix(name, " (deleted)") // a new version was installed
}
