package publish

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/internal/unwind"
)

// The rules of services lead connections to a port of the host to containers before the sets
// of published ports are asked. A service is in these all the same, as a publication to its own
// address: so no container gets such a port, and no service that of a container. Where the rules
// of services are lost, or nothing is behind the service, its address refuses.

// ServicePorts are the ports of the host that a service has.
type ServicePorts struct {
	Network, Service string
	Bridge           string       // by which the host reaches the containers; it may come later
	Addrs            []netip.Addr // of the service
	Ports            []model.PortMapping
}

// ServicePortsOf are the published ports of a service.
func ServicePortsOf(s service.Service, bridge string) ServicePorts {
	all := ServicePorts{Network: s.Network, Service: s.Name, Bridge: bridge, Addrs: s.VIPs}
	for _, p := range s.Published {
		all.Ports = append(all.Ports, model.PortMapping{Protocol: p.Protocol.String(), HostIP: p.HostIP, HostPort: int(p.Port), ContainerPort: int(p.To)})
	}
	return all
}

func (s ServicePorts) id() model.ID {
	id := model.ID{Network: s.Network}
	id.ContainerID, id.IfName = service.Lease(s.Service)
	return id
}

// isService says that a publication is one of a service.
func isService(id model.ID) bool {
	_, is := service.OfLease(id.ContainerID, id.IfName)
	return is
}

func (k *Ports) servicePublisher(s ServicePorts) *Publisher {
	return &Publisher{ports: k, dir: k.Publications, network: s.Network, cfg: model.PublishConfig{Backend: model.BackendNFTables}}
}

// TakeForService takes ports of the host for a service, beside those that it has: all or none.
// A port of a container, or of another service, is a *PortHeldError. Restored: the rules of the
// host had been lost, and those of others still are.
func (k *Ports) TakeForService(ctx context.Context, s ServicePorts) (restored bool, err error) {
	p, id := k.servicePublisher(s), s.id()
	release, err := p.dir.Own(ctx, s.Network, id.ContainerID, id.IfName, state.Create)
	if err != nil {
		return false, err
	}
	defer release()
	rec := state.Endpoint{
		Network: id.Network, ContainerID: id.ContainerID, IfName: id.IfName,
		Phase: state.PhaseIntent, Boot: k.Boot, MountNS: life.MountNS(), Bridge: s.Bridge, Rules: true, Config: p.cfg.JSON(),
	}
	for _, a := range s.Addrs {
		rec.Addresses = append(rec.Addresses, state.Address{Prefix: netip.PrefixFrom(a, a.BitLen())})
	}
	before, err := p.load(id)
	has := err == nil && before.Phase == state.PhaseReady && before.Bridge == rec.Bridge && slices.Equal(before.Addrs(), rec.Addrs())
	if err == nil && !has { // of an earlier service of this name, or of a call that was killed
		err = p.takeAway(ctx, before)
	}
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return false, err
	}
	ports := s.Ports
	if has {
		ports = append(plan.PortsOf(before), s.Ports...)
	}
	if ports, err = model.ValidatePorts(dedupe(ports)); err != nil {
		return false, err
	}
	var undo unwind.Stack
	defer undo.Rollback(&err)
	if rec.Ports = plan.SavedPorts(ports); !has {
		undo.Push(func() error { return p.takeAway(context.WithoutCancel(ctx), rec) })
		if err := p.dir.CreateEndpoint(rec); err != nil {
			return false, err
		}
	}
	return p.publishAlone(ctx, &rec, ports)
}

func dedupe(ports []model.PortMapping) (all []model.PortMapping) {
	for _, p := range ports {
		if !slices.ContainsFunc(all, func(q model.PortMapping) bool { return p.String() == q.String() }) {
			all = append(all, p)
		}
	}
	return all
}

// OpenToService has 127.0.0.1 lead to the ports of a service by its interface, which has come, or come
// again, since they were taken.
func (k *Ports) OpenToService(s ServicePorts) error {
	for _, a := range s.Addrs {
		if a.Is4() && model.PublishesLocalhost(s.Ports) {
			_, err := k.Host.SetRouteLocalnet(s.Bridge, true)
			return err
		}
	}
	return nil
}

// LeaveToService frees the ports of the host that a service has and that are not among Ports.
// None at all is success.
func (k *Ports) LeaveToService(ctx context.Context, s ServicePorts) error {
	p, id := k.servicePublisher(s), s.id()
	if len(s.Ports) == 0 {
		return p.Remove(ctx, id)
	}
	release, err := p.dir.Own(ctx, s.Network, id.ContainerID, id.IfName, state.OnlyExisting)
	if err != nil {
		return err
	}
	defer release()
	rec, err := p.load(id)
	if err != nil {
		return ignoreMissing(err)
	}
	kept := func(m model.PortMapping) bool {
		return slices.ContainsFunc(s.Ports, func(q model.PortMapping) bool { return m.String() == q.String() })
	}
	gone := slices.DeleteFunc(plan.PortsOf(rec), kept)
	if len(gone) == 0 {
		return nil
	}
	rec.Ports = plan.SavedPorts(slices.DeleteFunc(plan.PortsOf(rec), func(m model.PortMapping) bool { return !kept(m) }))
	fw := firewall.Endpoint{Owner: model.PublicationOwner(id), Port: noPort, Bridge: rec.Bridge, Addrs: rec.Addrs(), Ports: model.FirewallPorts(gone)}
	if err := k.Guard.Rules.NFTables.Remove(ctx, fw); err != nil {
		return err
	}
	// Ports that stay share some elements with those that went.
	if _, err := k.Reapply(ctx, rec.Backend, p.ruleset(rec)); err != nil {
		return err
	}
	if !p.opensLocalhost(rec) {
		if err := k.CloseLocalhost(ctx, rec); err != nil {
			return err
		}
	}
	return p.dir.SaveEndpoint(rec)
}

// VerifyService changes nothing and says what differs from what the service should have.
func (k *Ports) VerifyService(ctx context.Context, s ServicePorts) error {
	p, id := k.servicePublisher(s), s.id()
	rec, err := p.load(id)
	switch {
	case errors.Is(err, state.ErrNotFound) && len(s.Ports) == 0:
		return nil
	case errors.Is(err, state.ErrNotFound):
		return fmt.Errorf("%w: port %s of the host is not taken", model.ErrDifferent, s.Ports[0])
	case err != nil:
		return err
	}
	if rec.Phase != state.PhaseReady || rec.Bridge != s.Bridge || !slices.Equal(rec.Addrs(), s.Addrs) || !model.SamePorts(plan.PortsOf(rec), s.Ports) {
		return fmt.Errorf("%w: other ports of the host are taken", model.ErrDifferent)
	}
	return p.verify(ctx, rec)
}

// ServicesOf returns the names of the services that have ports of the host by a network.
func (k *Ports) ServicesOf(network string) (names []string, err error) {
	recs, err := k.Publications.Endpoints(network)
	if errors.Is(err, state.ErrCorrupt) {
		err = nil // set aside
	}
	for _, rec := range recs {
		if name, is := service.OfLease(rec.ContainerID, rec.IfName); is {
			names = append(names, name)
		}
	}
	return names, err
}
