package main

import (
	"context"
	"errors"
	"net/netip"

	"github.com/libnet-cni/libnet/pkg/libnet"
)

type ours struct {
	controller *libnet.Controller
	network    *libnet.Network
}

func openOurs(backend string) (library, error) {
	c, err := libnet.New()
	if err != nil {
		return nil, err
	}
	n, err := c.NewNetwork(context.Background(), "bridge", "bench", libnet.WithSubnet(netip.MustParsePrefix("10.90.0.0/16")),
		libnet.WithGatewayMode(libnet.GatewayNAT), libnet.WithDriverOptions(map[string]any{"backend": backend}))
	return &ours{c, n}, err
}

func (o *ours) add(name string, port uint16) error {
	ctx := context.Background()
	sb, err := o.controller.NewSandbox(ctx, name)
	if err != nil {
		return err
	}
	ep, err := o.network.CreateEndpoint(ctx, name, libnet.WithPorts(libnet.PortMapping{HostPort: int(port), ContainerPort: 80, Protocol: "tcp"}))
	if err != nil {
		return err
	}
	return ep.Join(ctx, sb)
}

func (o *ours) remove(name string) error {
	ctx := context.Background()
	ep, err := o.network.Endpoint(ctx, name)
	if err != nil {
		return err
	}
	sb, err := o.controller.Sandbox(ctx, name)
	if err != nil {
		return err
	}
	return errors.Join(ep.Leave(ctx), ep.Delete(ctx), sb.Delete(ctx))
}
