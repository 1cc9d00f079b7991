package main

import (
	"context"
	"errors"

	"github.com/containerd/log"
	"github.com/moby/moby/v2/daemon/libnetwork"
	"github.com/moby/moby/v2/daemon/libnetwork/config"
	"github.com/moby/moby/v2/daemon/libnetwork/drivers/bridge"
	"github.com/moby/moby/v2/daemon/libnetwork/netlabel"
	"github.com/moby/moby/v2/daemon/libnetwork/types"
)

type theirs struct {
	network    *libnetwork.Network
	controller *libnetwork.Controller
	made       map[string]pair
}

type pair struct {
	sb *libnetwork.Sandbox
	ep *libnetwork.Endpoint
}

func openTheirs(backend string) (library, error) {
	ctx := context.Background()
	if err := log.SetLevel("error"); err != nil {
		return nil, err
	}
	c, err := libnetwork.New(ctx, config.OptionDataDir("/run/libnetwork"), config.OptionExecRoot("/run/libnetwork-exec"),
		config.OptionFirewallBackend(backend),
		config.OptionBridgeConfig(bridge.Configuration{EnableIPForwarding: true, EnableIPTables: true}))
	if err != nil {
		return nil, err
	}
	n, err := c.NewNetwork(ctx, "bridge", "bench", "bench-id", libnetwork.NetworkOptionEnableIPv4(true),
		libnetwork.NetworkOptionIpam("default", "", []*libnetwork.IpamConf{{PreferredPool: "10.90.0.0/16"}}, nil, nil),
		libnetwork.NetworkOptionGeneric(map[string]any{
			netlabel.EnableIPv4:  true,
			netlabel.GenericData: map[string]string{bridge.BridgeName: "br-bench", bridge.EnableIPMasquerade: "true", bridge.EnableICC: "true"},
		}))
	return &theirs{n, c, map[string]pair{}}, err
}

func (t *theirs) add(name string, port uint16) error {
	ctx := context.Background()
	ports := []types.PortBinding{{Proto: types.TCP, Port: 80, HostPort: port}}
	exposed := []types.TransportPort{{Proto: types.TCP, Port: 80}}
	sb, err := t.controller.NewSandbox(ctx, name, libnetwork.OptionPortMapping(ports), libnetwork.OptionExposedPorts(exposed))
	if err != nil {
		return err
	}
	ep, err := t.network.CreateEndpoint(ctx, name, libnetwork.CreateOptionPortMapping(ports), libnetwork.CreateOptionExposedPorts(exposed))
	if err != nil {
		return err
	}
	t.made[name] = pair{sb, ep}
	return ep.Join(ctx, sb)
}

func (t *theirs) remove(name string) error {
	ctx := context.Background()
	p := t.made[name]
	delete(t.made, name)
	return errors.Join(p.ep.Leave(ctx, p.sb), p.ep.Delete(ctx, false), p.sb.Delete(ctx))
}
