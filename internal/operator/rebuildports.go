package operator

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/state"
)

// publications writes the records of Publishers that are lost.
func (r *rebuilder) publications(ctx context.Context) error {
	dir := r.o.ports.Publications
	var errs []error
	silent := func(owners []string, why error) {
		for _, owner := range owners {
			id, ok := model.ParsePublication(owner)
			if r.o.elsewhere(id.Network) != "" {
				continue
			}
			if _, err := dir.LoadEndpoint(id.Network, id.ContainerID, id.IfName); ok && state.Missing(err) {
				errs = append(errs, fmt.Errorf("rebuild ports of %s %s in network %q: %w", id.ContainerID, id.IfName, id.Network, why))
			}
		}
	}
	silent(r.iptables, errByIPTables)
	silent(r.rules.Conditioned, errConditioned)
	for owner, fw := range r.rules.Endpoints {
		id, ok := model.ParsePublication(owner)
		if _, is := service.OfLease(id.ContainerID, id.IfName); is {
			continue // the definition of the service tells, and repair
		}
		if !strings.HasPrefix(owner, model.PublicationPrefix) || len(fw.Addrs) == 0 || r.o.elsewhere(id.Network) != "" {
			continue
		}
		if !ok {
			errs = append(errs, fmt.Errorf("rebuild ports of %s: the name is cut: restart the container to have a record", owner))
			continue
		}
		if _, err := dir.LoadEndpoint(id.Network, id.ContainerID, id.IfName); !state.Missing(err) {
			errs = append(errs, err)
			continue
		}
		if err := r.publication(ctx, dir, id, fw); err != nil {
			errs = append(errs, fmt.Errorf("rebuild ports of %s %s in network %q: %w", id.ContainerID, id.IfName, id.Network, err))
		}
	}
	return errors.Join(errs...)
}

func (r *rebuilder) publication(ctx context.Context, dir *state.Dir, id model.ID, fw firewall.Endpoint) error {
	cfg := model.PublishConfig{NoHairpin: !fw.Hairpin, MasqueradeAll: fw.MasqueradeAll}
	rec := state.Endpoint{
		Network: id.Network, ContainerID: id.ContainerID, IfName: id.IfName,
		Phase: state.PhaseReady, Boot: r.o.boot, Bridge: fw.Bridge, Rules: true, Backend: string(model.BackendNFTables),
		Ports: plan.SavedPorts(recordedPorts(fw.Ports, fw.Addrs)), Config: cfg.JSON(),
	}
	for _, a := range fw.Addrs {
		rec.Addresses = append(rec.Addresses, state.Address{Prefix: netip.PrefixFrom(a, a.BitLen())})
	}
	if path, err := r.o.kernel.Holder(ctx, fw.Addrs[0], r.ns); err == nil {
		ns, err := life.NetnsIDOf(path)
		if err != nil {
			return err
		}
		rec.Netns, rec.NetnsID, rec.MountNS = path, state.NetnsID(ns), life.MountNS()
	} else if !errors.Is(err, netlink.ErrNotFound) {
		return err
	}
	if rec.Bridge == "" {
		device, err := r.o.kernel.DeviceTo(fw.Addrs[0])
		if err != nil {
			return err
		}
		rec.Bridge = device
	}
	release, err := dir.Own(ctx, id.Network, id.ContainerID, id.IfName, state.Create)
	if err != nil {
		return err
	}
	defer release()
	if err := dir.CreateEndpoint(rec); err != nil {
		return err
	}
	if err := r.o.ports.VerifyPublication(ctx, rec); err != nil { // removed meanwhile
		return errors.Join(err, dir.DeleteEndpoint(id.Network, id.ContainerID, id.IfName))
	}
	r.done = append(r.done, id)
	return nil
}
