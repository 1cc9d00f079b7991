// Package plugin holds the keys and verbs of the plugins that attach containers to a network of pkg/libnet: bridge-ln and overlay-ln.
package plugin

import "github.com/libnet-cni/libnet/internal/cni"

// driver is how one plugin differs from the other.
type driver struct {
	name   string // of the network driver
	bridge string // of a configuration that names none; empty: derived
	tunnel bool   // the network spans hosts
}

var (
	bridge  = driver{name: "bridge", bridge: "cni0"} // as in the reference bridge plugin
	overlay = driver{name: "overlay", tunnel: true}
)

// Bridge is bridge-ln.
func Bridge(version string) cni.Plugin { return bridge.plugin("bridge-ln", version) }

// Overlay is overlay-ln.
func Overlay(version string) cni.Plugin { return overlay.plugin("overlay-ln", version) }

func (d driver) plugin(name, version string) cni.Plugin {
	return cni.Plugin{
		Name: name, Version: version,
		Add: d.add, Check: d.check, Del: d.del, GC: d.collect, Status: d.status,
	}
}
