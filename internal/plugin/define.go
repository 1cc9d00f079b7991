package plugin

import (
	"context"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/plan"
)

// Defined is what ADD has read and planned before it changes anything.
type Defined struct {
	netconf.Network
	Plan *plan.Network
	// Pool is that of ipam-ln; nil: the addresses come from elsewhere, there are none, or
	// their subnet is yet to be chosen.
	Pool  *address.Pool
	Ports []model.PortMapping
}

// Define is a plugin that reads as ADD does, and calls fn where ADD would change the host. The
// verb is CHECK, which has no result.
func Define(p netconf.Plugin, version string, fn func(Defined) error) cni.Plugin {
	d := bridge
	if p == netconf.Overlay {
		d = overlay
	}
	d.guest = true // the process goes on
	check := func(_ context.Context, call *cni.Call) error {
		conf, err := d.parse(call)
		if err != nil {
			return err
		}
		return conf.withNetwork(func(c *engine.Controller, n *engine.Network) error {
			def := Defined{Network: conf.Network, Plan: n.Plan(), Ports: Ports(conf.Ports)}
			if _, auto := conf.ipam.(*address.AutoPool); auto { // chosen with the first container
				if recorded, err := c.Network(conf.name); err == nil {
					n = recorded
				}
			}
			if pool, ok := n.IPAM().(*address.Pool); ok && len(pool.Saved().Sets) > 0 {
				def.Pool = pool
			}
			return fn(def)
		})
	}
	return cni.Plugin{Name: d.keys.String(), Version: version, Complete: d.fromFiles, Vet: Vet(d.keys), Check: check}
}
