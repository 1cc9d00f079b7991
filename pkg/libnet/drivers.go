package libnet

import (
	"fmt"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/driver"
	"github.com/libnet-cni/libnet/internal/driver/bridge"
	"github.com/libnet-cni/libnet/internal/driver/cniplugin"
	"github.com/libnet-cni/libnet/internal/driver/host"
	"github.com/libnet-cni/libnet/internal/driver/null"
	"github.com/libnet-cni/libnet/internal/driver/overlay"
	"github.com/libnet-cni/libnet/internal/model"
)

// Scope is how far the networks of a driver reach.
type Scope = driver.Scope

// The scopes.
const (
	ScopeLocal  = driver.Local  // this host
	ScopeGlobal = driver.Global // several hosts
)

// DriverInfo is what can be said of a driver without using it.
type DriverInfo struct {
	Name    string
	Scope   Scope // of a CNI plugin: that of a network without WithScope
	BuiltIn bool  // else it is a CNI plugin
}

// kind is a driver by its name.
type kind struct {
	name       string
	capability driver.Capability
	// configure sets a configuration of the engine, which makes the networks of the
	// drivers that have it.
	configure func(*model.NetworkConfig, map[string]any) error
	driver    driver.Driver // nil: the engine's
}

func builtIn() []kind {
	return []kind{
		{name: bridge.Name, capability: bridge.Capability(), configure: bridge.Configure},
		{name: host.Name, capability: host.Capability(), driver: host.Driver{}},
		{name: null.Name, capability: null.Capability(), driver: null.Driver{}},
		{name: overlay.Name, capability: overlay.Capability(), configure: overlay.Configure},
	}
}

// The IPAM driver of no addresses.
const ipamNull = "null"

func (c *Controller) kindOf(name string) (kind, error) {
	for _, k := range builtIn() {
		if k.name == name {
			return k, nil
		}
	}
	if d := cniplugin.Find(c.path, name); d != nil {
		return kind{name: name, capability: cniplugin.Capability(), driver: d}, nil
	}
	return kind{}, fmt.Errorf("%w %q: there are %s, and no such plugin in %s", ErrUnknownDriver, name, names(c.Drivers()), strings.Join(c.path, ":"))
}

// Drivers returns the built-in drivers, then the CNI plugins in the plugin path.
func (c *Controller) Drivers() []DriverInfo {
	var all []DriverInfo
	for _, k := range builtIn() {
		all = append(all, DriverInfo{Name: k.name, Scope: k.capability.Scope, BuiltIn: true})
	}
	return c.withPlugins(all, ipamPlugins())
}

// IPAMDrivers returns the built-in drivers of addresses, then the CNI plugins in the
// plugin path that may be some.
func (c *Controller) IPAMDrivers() []DriverInfo {
	all := []DriverInfo{{Name: address.PoolType, Scope: ScopeLocal, BuiltIn: true}, {Name: ipamNull, Scope: ScopeLocal, BuiltIn: true}}
	return c.withPlugins(all, mainPlugins())
}

// withPlugins adds the plugins that are not known to be of another kind.
func (c *Controller) withPlugins(all []DriverInfo, but []string) []DriverInfo {
	for _, name := range cniplugin.List(c.path) {
		has := slices.ContainsFunc(all, func(d DriverInfo) bool { return d.Name == name })
		if !has && !slices.Contains(but, name) && !slices.Contains(chainedPlugins(), name) {
			all = append(all, DriverInfo{Name: name, Scope: ScopeLocal})
		}
	}
	return all
}

// The plugins of this module and the reference ones, by kind: a program does not say
// of which kind it is.
func ipamPlugins() []string { return []string{"dhcp", "host-local", address.PoolType, "static"} }

func mainPlugins() []string {
	return []string{"bridge", "bridge-ln", "dummy", "host-device", "ipvlan", "loopback", "macvlan", "overlay-ln", "ptp", "tap", "vlan"}
}

func chainedPlugins() []string {
	return []string{"bandwidth", "firewall", "portmap", "portmap-ln", "sbr", "tuning", "vrf"}
}

func names(all []DriverInfo) string {
	var s []string
	for _, d := range all {
		s = append(s, d.Name)
	}
	return strings.Join(s, ", ")
}
