// Package plugin holds the verbs of the plugins that attach containers to a network of
// pkg/libnet, bridge-ln and overlay-ln, and what the other plugins share with them.
package plugin

import (
	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/netconf"
)

// driver is how one plugin differs from the other.
type driver struct {
	name   string // of the network driver
	keys   netconf.Plugin
	read   func(netconf.Source) (*netconf.Network, error)
	bridge string // of a configuration that names none; empty: derived
	// skim has an ADD do without a list of nodes that an earlier one has seen; nil: there is none.
	skim func(driver, *conf, *cni.Call, *netconf.Source)
	// join, if the network spans hosts, tells this one's place in it.
	join func(*conf, *cni.Call) error
	// option is of the engine; nil: none.
	option func() engine.Option
	guest  bool // an operator calls it, in a process that goes on
}

var (
	bridge  = driver{name: "bridge", keys: netconf.Bridge, read: netconf.ReadBridge, bridge: "cni0"} // as in the reference bridge plugin
	overlay = driver{name: "overlay", keys: netconf.Overlay, read: netconf.ReadOverlay, skim: skimNodes, join: (*conf).joinTunnel, option: engine.SpansHosts}
)

// Bridge is bridge-ln.
func Bridge(version string) cni.Plugin { return bridge.plugin(version) }

// Overlay is overlay-ln.
func Overlay(version string) cni.Plugin { return overlay.plugin(version) }

// Guest is a plugin that adds a container to a network of which its runtime does not know
// (see engine.AsGuest), in a process that does not end at once. It has ADD alone.
func Guest(p netconf.Plugin, version string) cni.Plugin {
	d := bridge
	if p == netconf.Overlay {
		d = overlay
	}
	d.guest = true
	return cni.Plugin{Name: d.keys.String(), Version: version, Complete: d.complete, Observe: Observe(d.keys, version), Vet: Vet(d.keys), Add: d.add}
}

func (d driver) plugin(version string) cni.Plugin {
	return cni.Plugin{
		Name: d.keys.String(), Version: version, Complete: d.complete, Observe: Observe(d.keys, version), Vet: Vet(d.keys),
		Add: d.add, Check: d.check, Del: d.del, GC: d.collect, Status: d.status,
	}
}
