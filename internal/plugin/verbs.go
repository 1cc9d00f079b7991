package plugin

import (
	"context"
	"errors"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
)

func (d driver) add(ctx context.Context, call *cni.Call) (*cni.Result, error) {
	conf, err := d.skimmed(call)
	if err != nil {
		return nil, err
	}
	var result *cni.Result
	ports := Ports(conf.Ports)
	err = conf.withNetwork(func(c *engine.Controller, n *engine.Network) error {
		opts := []engine.SandboxOption{engine.WithNetnsPath(call.Netns)}
		if call.OwnNetns {
			opts = append(opts, engine.WithOwnNamespace())
		}
		sb, err := c.NewSandbox(ctx, call.ContainerID, opts...)
		if err != nil {
			return err
		}
		how := []engine.EndpointOption{
			engine.WithIfName(call.IfName), engine.WithMAC(conf.MAC),
			engine.WithAddresses(conf.requested()...), engine.WithWorkload(call.Workload()), engine.WithPodUID(call.Args["K8S_POD_UID"]), engine.WithPorts(ports...), engine.WithGatewayPriority(conf.Priority), engine.WithNames(conf.names(call.ContainerID)), engine.WithoutFastPath(conf.Limited),
		}
		if d.guest {
			how = append(how, engine.AsGuest(), engine.WithRuntime("lnctl connect"))
		} else {
			how = append(how, engine.WithRuntime(cni.Runtime()))
		}
		e, err := n.Attach(ctx, sb, how...)
		if err != nil {
			return err
		}
		if err := e.Unanswered(); err != nil {
			call.Warn("names are not answered, as no ln-agent runs: " + strings.ReplaceAll(err.Error(), "\n", "; "))
		}
		result = cni.EndpointResult(e)
		result.NamePorts(ports, e.Ports())
		return nil
	})
	if err == nil && conf.DNS != nil {
		result.DNS = types.DNS(*conf.DNS)
	}
	return result, err
}

func (d driver) check(ctx context.Context, call *cni.Call) error {
	conf, err := d.parse(call)
	if err != nil {
		return err
	}
	want, err := call.Expectation()
	if err != nil {
		return err
	}
	want.Ports = Ports(conf.Ports)
	return conf.withNetwork(func(_ *engine.Controller, n *engine.Network) error {
		return n.Verify(ctx, want)
	})
}

func (d driver) del(ctx context.Context, call *cni.Call) error {
	conf, err := d.loose(call)
	if err != nil {
		return err
	}
	return conf.withNetwork(func(_ *engine.Controller, n *engine.Network) error {
		id := model.ID{Network: call.Network, ContainerID: call.ContainerID, IfName: call.IfName}
		return n.RemoveFrom(ctx, id, call.Netns)
	})
}

func (d driver) collect(ctx context.Context, call *cni.Call) error {
	valid, err := call.ValidAttachments()
	if err != nil {
		return err
	}
	conf, err := d.loose(call)
	if err != nil {
		return err
	}
	return conf.withNetwork(func(c *engine.Controller, n *engine.Network) error {
		return n.Collect(ctx, valid.Keep(c.Dead, cni.Runtime()), engine.Dissolve(valid.Empty()))
	})
}

func (d driver) status(ctx context.Context, call *cni.Call) error {
	conf, err := d.parse(call)
	if err != nil {
		return err
	}
	return conf.withNetwork(func(c *engine.Controller, n *engine.Network) error {
		err := n.Status(ctx)
		if errors.Is(err, model.ErrLimited) { // what old containers suffer must keep no new one away
			call.Warn(strings.ReplaceAll(err.Error(), "\n", "; "))
			err = nil
		}
		if err == nil && conf.Names != nil && conf.Names.Responder == model.RespondBPF {
			err = c.CanAnswer(ctx)
		}
		if err != nil {
			return err
		}
		WarnNearlyFull(ctx, call, conf.ipam)
		return nil
	})
}
