package main

import (
	"context"

	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/publish"
)

func add(ctx context.Context, call *cni.Call) (*cni.Result, error) {
	conf, err := parse(call)
	if err != nil {
		return nil, err
	}
	result, err := call.PrevResult()
	if err != nil || len(conf.ports) == 0 {
		return result, err
	}
	addrs, err := call.PrevAddresses()
	if err != nil {
		return nil, err
	}
	err = conf.withPublisher(func(_ *engine.Controller, p *engine.Publisher) error {
		got, err := p.Publish(ctx, publish.Publication{ID: id(call), Netns: call.Netns, Addrs: addrs, Ports: conf.ports, Runtime: cni.Runtime()})
		result.NamePorts(conf.ports, got)
		return err
	})
	return result, err
}

func check(ctx context.Context, call *cni.Call) error {
	conf, err := parse(call)
	if err != nil {
		return err
	}
	if _, err := call.PrevResult(); err != nil || len(conf.ports) == 0 {
		return err
	}
	addrs, err := call.PrevAddresses()
	if err != nil {
		return err
	}
	return conf.withPublisher(func(_ *engine.Controller, p *engine.Publisher) error {
		return p.Verify(ctx, publish.Publication{ID: id(call), Netns: call.Netns, Addrs: addrs, Ports: conf.ports})
	})
}

// del does not ask which ports there are: runtimes leave them out, and what was
// published goes all the same.
func del(ctx context.Context, call *cni.Call) error {
	return loose(call).withPublisher(func(_ *engine.Controller, p *engine.Publisher) error {
		return p.Remove(ctx, id(call))
	})
}

func collect(ctx context.Context, call *cni.Call) error {
	valid, err := call.ValidAttachments()
	if err != nil {
		return err
	}
	return loose(call).withPublisher(func(c *engine.Controller, p *engine.Publisher) error {
		return p.Collect(ctx, valid.Keep(c.Dead, cni.Runtime()))
	})
}

func status(ctx context.Context, call *cni.Call) error {
	conf, err := parse(call)
	if err != nil {
		return err
	}
	return conf.withPublisher(func(_ *engine.Controller, p *engine.Publisher) error {
		return p.Status(ctx)
	})
}

func id(call *cni.Call) model.ID {
	return model.ID{Network: call.Network, ContainerID: call.ContainerID, IfName: call.IfName}
}
