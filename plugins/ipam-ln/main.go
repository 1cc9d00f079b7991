// Command ipam-ln is a CNI plugin: it gives addresses out of pools of this
// host, in the directory layout of host-local. docs/configuration.md lists its keys.
package main

import (
	"context"
	"net/netip"
	"os"

	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/plugin"
)

// version is set by the linker (see the Makefile).
var version = "v0.0.0-dev"

func main() {
	os.Exit(program().Run(os.Getenv, cni.Standard()))
}

func program() cni.Plugin {
	return cni.Plugin{
		Name: "ipam-ln", Version: version, Vet: plugin.Vet(netconf.IPAM),
		Add: add, Check: check, Del: del, GC: collect, Status: status,
	}
}

func add(ctx context.Context, call *cni.Call) (*cni.Result, error) {
	pool, requested, err := poolOf(call)
	if err != nil {
		return nil, err
	}
	claim, err := engine.NewClaim(id(call), call.Netns)
	if err != nil { // the caller's affair: such a lease is held until DEL or GC
		claim = engine.Claim{ID: id(call)}
	}
	claim.Addresses, claim.Workload = requested, call.Workload()
	got, err := pool.Apply(ctx, claim)
	if err != nil {
		return nil, err
	}
	return cni.AddressResult(got), nil
}

func check(ctx context.Context, call *cni.Call) error {
	pool, _, err := poolOf(call)
	if err != nil {
		return err
	}
	addrs, err := call.ExpectedAddresses()
	if err != nil {
		return err
	}
	return pool.Verify(ctx, id(call), addrs)
}

func del(ctx context.Context, call *cni.Call) error {
	pool, err := loosePool(call)
	if err != nil {
		return err
	}
	return pool.Remove(ctx, id(call))
}

func collect(ctx context.Context, call *cni.Call) error {
	valid, err := call.ValidAttachments()
	if err != nil {
		return err
	}
	boot, err := engine.BootID()
	if err != nil {
		return err
	}
	pool, err := loosePool(call)
	if err != nil {
		return err
	}
	err = pool.Collect(ctx, valid.Keep(func(h engine.Holder) bool { return h.Dead(boot) }, ""))
	if err == nil && valid.Empty() {
		err = pool.ReleaseSubnets(ctx)
	}
	return err
}

func status(ctx context.Context, call *cni.Call) error {
	pool, _, err := poolOf(call)
	if err != nil {
		return err
	}
	if err := pool.Status(ctx); err != nil {
		return err
	}
	plugin.WarnNearlyFull(ctx, call, pool)
	return nil
}

// poolOf returns the pool that the ipam section describes, and the addresses that the runtime
// asks for.
func poolOf(call *cni.Call) (engine.IPAM, []netip.Addr, error) {
	conf, err := netconf.ReadPool(plugin.Source(call))
	if err != nil {
		return nil, nil, err
	}
	pool, err := plugin.NewPool(call, conf)
	return pool, conf.Requested, err
}

// loosePool returns a pool that can only take addresses back.
func loosePool(call *cni.Call) (*engine.Pool, error) {
	return engine.NewPool(netconf.LoosePool(plugin.Source(call)), model.Addressing{})
}

func id(call *cni.Call) model.ID {
	return model.ID{Network: call.Network, ContainerID: call.ContainerID, IfName: call.IfName}
}
