package operator

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/balancer"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// isService says that a service holds addresses, or ports of the host, under this name.
func isService(id model.ID) bool {
	_, is := service.OfLease(id.ContainerID, id.IfName)
	return is
}

// VIP says which address a new service gets.
type VIP struct {
	Auto  bool         // the next free ones of the network's pool
	None  bool         // none: clients find the backends by name alone
	Addrs []netip.Addr // otherwise these, one of each family at most
}

// CreateService makes a service of a network that has a record. The errors: service.ErrInvalid,
// model.ErrNotFound, balancer.ErrExists, *model.ConfigError for a network that cannot have
// services, and those of the pool.
func (o *Operator) CreateService(ctx context.Context, def service.Service, vip VIP) (_ service.Service, err error) {
	leave, err := o.Enter()
	if err != nil {
		return def, err
	}
	defer leave(&err)
	if vip.None {
		def.VIPs = nil
	} else {
		def.VIPs = []netip.Addr{netip.IPv4Unspecified()} // for Check: there will be one
	}
	if err := errors.Join(model.ValidateName("network name", def.Network), def.Check()); err != nil {
		return def, err
	}
	if def.VIPs = nil; o.spans(def.Network) {
		return o.createShared(ctx, def, vip)
	}
	n, err := o.Network(def.Network)
	if err == nil {
		err = ofOneHost(def)
	}
	if err == nil {
		err = o.named(n)
	}
	if err == nil && !vip.None {
		err = o.balanced(n, def)
	}
	if err != nil {
		return def, err
	}
	release, err := o.ownService(ctx, def.Network, def.Name)
	if err != nil {
		return def, err
	}
	defer release()
	if _, err := o.Services().Look(ctx, def.Network, def.Name); !errors.Is(err, balancer.ErrNotFound) {
		return def, errors.Join(err, fmt.Errorf("%w: %q on network %q", balancer.ErrExists, def.Name, def.Network))
	}
	if _, err := n.FreeService(ctx, def.Name); err != nil { // of a call that was killed
		return def, err
	}
	if vip.None {
		return def, o.Services().Create(ctx, def, gatewayInterface(n))
	}
	if err := o.addressService(ctx, n, &def, vip); err != nil {
		return def, err
	}
	if err := o.Services().Create(ctx, def, gatewayInterface(n)); err != nil {
		return def, errors.Join(err, o.freeService(context.WithoutCancel(ctx), n, def))
	}
	return def, nil
}

// named refuses networks whose containers have no names, by which a service selects them. One
// without containers may have them or not: its record does not tell.
func (o *Operator) named(n *engine.Network) error {
	recs, err := o.dir.Endpoints(n.Name())
	named := func(rec state.Endpoint) bool { return rec.Names != nil }
	if ignoreCorrupt(err) != nil || len(recs) == 0 || slices.ContainsFunc(recs, named) {
		return ignoreCorrupt(err)
	}
	return model.BadConfig("network", n.Name(), `has containers, and none has a name, by which a service selects them: set "names": true in its configuration, and start them anew`)
}

// balanced refuses networks that cannot have services with an address, or such a port.
func (o *Operator) balanced(n *engine.Network, def service.Service) error {
	c := n.Config()
	switch {
	case len(def.Published) > 0 && c.IsInternal():
		return model.BadConfig("publish", def.Published[0], fmt.Sprintf("network %q is internal: nothing comes in from outside", n.Name()))
	case n.Driver() != plan.DriverBridge:
		return model.BadConfig("network", n.Name(), "is an overlay network without ln-agent: a service of it can have no address, only --vip none")
	case c.Backend == model.BackendIPTables:
		return model.BadConfig("backend", "iptables", "cannot balance: services need nftables")
	case !c.HasGateway() || c.NoHost:
		return model.BadConfig("network", n.Name(), "keeps the host out, which would balance: give it a gateway (isGateway, or a gatewayMode other than isolated), or the service --vip none")
	}
	return o.rules.NFTables.Available()
}

// ownService keeps others that make or remove a service of that name out: they have the same
// lease.
func (o *Operator) ownService(ctx context.Context, network, name string) (release func(), err error) {
	id, ifName := service.Lease(name)
	return o.dir.Own(ctx, network, id, ifName, state.OnlyExisting)
}

// addressService gives the service its addresses.
func (o *Operator) addressService(ctx context.Context, n *engine.Network, def *service.Service, vip VIP) error {
	for i, a := range vip.Addrs {
		if slices.ContainsFunc(vip.Addrs[:i], func(b netip.Addr) bool { return a.Is4() == b.Is4() }) {
			return fmt.Errorf("%w: vip %s: want one address of each family", service.ErrInvalid, a)
		}
		if !slices.ContainsFunc(n.Subnets(), func(s netip.Prefix) bool { return s.Contains(a) }) {
			return fmt.Errorf("%w: vip %s: want an address of the network's subnets %s", service.ErrInvalid, a, joinText(n.Subnets()))
		}
	}
	pool, ours := n.IPAM().(*address.Pool)
	if !ours {
		if vip.Auto {
			return fmt.Errorf("%w: vip auto: the addresses of network %q are not of ipam-ln: want an address that its IPAM gives to no container", service.ErrInvalid, n.Name())
		}
		def.VIPs = vip.Addrs
		return o.freeForService(ctx, *def)
	}
	id := model.ID{Network: def.Network}
	id.ContainerID, id.IfName = service.Lease(def.Name)
	got, err := pool.Apply(ctx, address.Claim{ID: id, Addresses: vip.Addrs})
	if err != nil {
		return err
	}
	def.Leased = true
	for _, a := range got.Addresses {
		def.VIPs = append(def.VIPs, a.Prefix.Addr())
	}
	if !vip.Auto { // the pool gives one of each range set
		def.VIPs = slices.DeleteFunc(def.VIPs, func(a netip.Addr) bool { return !slices.Contains(vip.Addrs, a) })
	}
	if err := errors.Join(o.freeForService(ctx, *def), published(n, *def)); err != nil {
		return errors.Join(err, o.freeService(ctx, n, *def))
	}
	return nil
}

// published refuses ports of the host that nothing could lead to the service.
func published(n *engine.Network, def service.Service) error {
	for _, p := range def.Published {
		all := p.HostIP.IsValid()
		leads := slices.ContainsFunc(def.VIPs, func(a netip.Addr) bool {
			return (!all || a.Is4() == p.HostIP.Is4()) && n.Config().Mode(a.Is6()) != model.GatewayRouted
		})
		if !leads && all {
			return fmt.Errorf("%w: publish %s: the service has no address of that family, or the network is routed there and has no ports of the host", service.ErrInvalid, p)
		}
		if !leads {
			return fmt.Errorf("%w: publish %s: network %q is routed: its containers are asked by their own addresses", service.ErrInvalid, p, n.Name())
		}
	}
	return nil
}

// freeForService says whose the addresses of a new service are already.
func (o *Operator) freeForService(ctx context.Context, def service.Service) error {
	all, err := o.Services().List(ctx, "")
	for _, other := range all {
		for _, a := range def.VIPs {
			if slices.Contains(other.VIPs, a) {
				return fmt.Errorf("%w: vip %s: is that of service %q", service.ErrInvalid, a, other.Name)
			}
		}
	}
	recs, recErr := o.dir.Endpoints(def.Network)
	for _, rec := range recs {
		for _, a := range rec.Addresses {
			if slices.Contains(def.VIPs, a.Prefix.Addr()) || slices.Contains(def.VIPs, a.Gateway) {
				return fmt.Errorf("%w: vip %s: is that of container %s, or of its gateway", service.ErrInvalid, joinText(def.VIPs), rec.ContainerID)
			}
		}
	}
	return errors.Join(err, recErr)
}

func (o *Operator) freeService(ctx context.Context, n *engine.Network, def service.Service) error {
	pool, ours := n.IPAM().(*address.Pool)
	if !ours || !def.Leased {
		return nil
	}
	id := model.ID{Network: def.Network}
	id.ContainerID, id.IfName = service.Lease(def.Name)
	err := pool.Remove(ctx, id)
	if errors.Is(err, ipamstore.ErrNotFound) {
		return nil
	}
	return err
}

// RemoveService removes a service and gives its addresses back. ErrNotFound of package
// balancer if there is none.
func (o *Operator) RemoveService(ctx context.Context, network, name string) (err error) {
	leave, err := o.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	if o.isShared(ctx, network, name) {
		_, err := o.askService(service.DoRemove, service.Request{Shared: sharedNamed(network, name)})
		return err
	}
	release, err := o.ownService(ctx, network, name)
	if err != nil {
		return err
	}
	defer release()
	gone := o.Services().Remove(ctx, network, name)
	if gone != nil && !errors.Is(gone, balancer.ErrNotFound) {
		return gone
	}
	n, err := o.Network(network)
	if errors.Is(err, model.ErrNotFound) {
		return gone
	}
	if err != nil {
		return errors.Join(gone, err)
	}
	freed, err := n.FreeService(ctx, name)
	if freed { // else there was nothing of it: a call that was killed leaves the address alone
		gone = nil
	}
	return errors.Join(gone, err)
}

// UpdateService is balancer.Services.Update in the Operator's namespace.
func (o *Operator) UpdateService(ctx context.Context, network, name string, fn func(*service.Service) error) (err error) {
	leave, err := o.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	if o.isShared(ctx, network, name) {
		return o.updateShared(network, name, fn)
	}
	release, err := o.ownService(ctx, network, name)
	if err != nil {
		return err
	}
	defer release()
	return o.Services().Update(ctx, network, name, func(def *service.Service) error {
		if err := fn(def); err != nil {
			return err
		}
		return ofOneHost(*def)
	})
}

// ofOneHost refuses what a service of one host cannot have.
func ofOneHost(def service.Service) error {
	switch {
	case def.External != "":
		return errExternal
	case def.Health.Is():
		return fmt.Errorf("%w: check: is for a network that spans hosts by ln-agent, which checks: on this one no daemon runs", service.ErrInvalid)
	}
	return nil
}

// errExternal is of a service of one host.
var errExternal = fmt.Errorf("%w: external: is for a network that spans hosts by ln-agent: on this one a published port leads to all containers, and they see the client", service.ErrInvalid)

// ListServices is balancer.Services.List in the Operator's namespace.
func (o *Operator) ListServices(ctx context.Context, network string) (_ []balancer.Found, err error) {
	leave, err := o.Enter()
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	return o.Services().List(ctx, network)
}

// FindService is balancer.Services.Look in the Operator's namespace.
func (o *Operator) FindService(ctx context.Context, network, name string) (_ balancer.Found, err error) {
	leave, err := o.Enter()
	if err != nil {
		return balancer.Found{}, err
	}
	defer leave(&err)
	return o.Services().Look(ctx, network, name)
}

// checkServices compares services with the kernel.
func (o *Operator) checkServices(ctx context.Context) []Finding {
	faults, err := o.Services().Faults(ctx)
	var all []Finding
	for _, f := range faults {
		all = append(all, Finding{"services", f.String(), "lnctl repair puts it right"})
	}
	if err != nil {
		all = append(all, Finding{"services", oneLine(err), "try again"})
	}
	ids, err := o.dir.Services()
	if len(all) == 0 && err == nil && len(ids) > 0 {
		return []Finding{{About: "services", Found: fmt.Sprintf("%d, as their records say", len(ids))}}
	}
	return all
}

func joinText[T fmt.Stringer](all []T) string {
	var text []string
	for _, v := range all {
		text = append(text, v.String())
	}
	return strings.Join(text, ", ")
}
