package main

import (
	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/plugin"
	"github.com/libnet-cni/libnet/internal/report"
)

// conf is what the verbs need of a configuration.
type conf struct {
	netconf.Publish
	network string
	ports   []model.PortMapping
	steps   *report.Steps
}

// parse refuses what it can before anything is changed.
func parse(call *cni.Call) (*conf, error) {
	p, err := netconf.ReadPublish(plugin.Source(call))
	return &conf{Publish: *p, network: call.Network, ports: plugin.Ports(p.Ports), steps: call.Steps}, err
}

// loose reads what DEL and GC need.
func loose(call *cni.Call) *conf {
	return &conf{Publish: *netconf.LoosePublish(plugin.Source(call)), network: call.Network, steps: call.Steps}
}

// withPublisher calls fn with the publisher of the configuration.
func (c *conf) withPublisher(fn func(*engine.Controller, *engine.Publisher) error) error {
	opts := []engine.Option{engine.InOneNamespace(), engine.WithSteps(c.steps)}
	if c.StateDir != "" {
		opts = append(opts, engine.WithStateDir(c.StateDir))
	}
	controller, err := engine.New(opts...)
	if err != nil {
		return err
	}
	c.steps.At("ports")
	// Not closed: the sockets go with the process, which ends now. To close them
	// before could wait for the kernel to free the rules that were deleted.
	p, err := controller.Publisher(c.network, c.Config)
	if err != nil {
		return err
	}
	return fn(controller, p)
}
