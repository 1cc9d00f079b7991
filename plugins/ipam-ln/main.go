// Command ipam-ln is a CNI plugin: it gives addresses out of pools of this
// host, in the directory layout of host-local. README.md lists its keys.
package main

import (
	"context"
	"os"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
)

// version is set by the linker (see the Makefile).
var version = "v0.0.0-dev"

func main() {
	os.Exit(plugin().Run(os.Getenv, cni.Standard()))
}

func plugin() cni.Plugin {
	return cni.Plugin{
		Name: "ipam-ln", Version: version,
		Add: add, Check: check, Del: del, GC: collect, Status: status,
	}
}

func add(ctx context.Context, call *cni.Call) (*cni.Result, error) {
	pool, requested, err := call.Pool()
	if err != nil {
		return nil, err
	}
	claim, err := address.NewClaim(id(call), call.Netns)
	if err != nil { // the caller's affair: such a lease is held until DEL or GC
		claim = address.Claim{ID: id(call)}
	}
	claim.Addresses, claim.Workload = requested, call.Workload()
	got, err := pool.Apply(ctx, claim)
	if err != nil {
		return nil, err
	}
	return cni.AddressResult(got), nil
}

func check(ctx context.Context, call *cni.Call) error {
	pool, _, err := call.Pool()
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
	pool, err := call.LoosePool()
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
	boot, err := life.BootID()
	if err != nil {
		return err
	}
	pool, err := call.LoosePool()
	if err != nil {
		return err
	}
	err = pool.Collect(ctx, valid.Keep(func(h life.Holder) bool { return h.Dead(boot) }, ""))
	if err == nil && valid.Empty() {
		err = pool.ReleaseSubnets(ctx)
	}
	return err
}

func status(ctx context.Context, call *cni.Call) error {
	pool, _, err := call.Pool()
	if err != nil {
		return err
	}
	if err := pool.Status(ctx); err != nil {
		return err
	}
	call.WarnNearlyFull(ctx, pool)
	return nil
}

func id(call *cni.Call) model.ID {
	return model.ID{Network: call.Network, ContainerID: call.ContainerID, IfName: call.IfName}
}
