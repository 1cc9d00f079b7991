package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
)

// Rebuild writes the records and leases that are lost, by what the kernel
// carries of attachments and of published ports: aliases, addresses and the
// comments of rules. Those that are there stay as they are. A network whose own record was
// lost gets one with as much of its configuration as shows; the next Attach completes it.
// Leases whose place no record tells go where WithDataDir says. Where no rules tell of it,
// WithConfigurations does; if that does not either, the error says so. Rules of iptables
// are not read: what has any keeps working, without a record. It goes on after errors and
// reports them joined, and returns the attachments whose records or leases it wrote.
func (o *Operator) Rebuild(ctx context.Context) (rebuilt []model.ID, err error) {
	leave, err := o.Enter()
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	r := rebuilder{o: o}
	if err := r.look(ctx); err != nil {
		return nil, err
	}
	errs := []error{r.retell()}
	for id, o := range r.owned {
		if err := r.endpoint(ctx, id, o); err != nil {
			errs = append(errs, fmt.Errorf("rebuild %s %s in network %q: %w", id.ContainerID, id.IfName, id.Network, err))
		}
	}
	errs = append(append(errs, r.untold...), r.networkRecords(ctx), r.publications(ctx), r.leases(ctx))
	slices.SortFunc(r.done, func(a, b model.ID) int { return cmp.Compare(a.String(), b.String()) })
	return slices.Compact(r.done), errors.Join(errs...)
}

// rebuilder is what one Rebuild knows.
type rebuilder struct {
	o        *Operator
	owned    map[model.ID]link.Owned // links
	ns       link.Namespaces
	rules    firewall.Recorded
	iptables []string // owners of rules by it
	done     []model.ID
	untold   []error // networks that may have been closed
}

// look reads what the kernel has.
func (r *rebuilder) look(ctx context.Context) (err error) {
	if r.owned, _, err = r.o.links(ctx); err != nil {
		return err
	}
	if r.rules, err = r.o.nft.Recorded(ctx); err != nil {
		return err
	}
	if r.iptables, err = r.o.rules.IPTables.List(ctx); err != nil {
		return err
	}
	r.ns, err = r.o.kernel.Namespaces()
	return err
}

// errByIPTables is of what gets no record.
var errByIPTables = errors.New("its rules are in iptables, which tell too little for a record: it keeps working; restart the container to have one")

// errConditioned is of publications that get no record.
var errConditioned = errors.New("its rules do not tell the words of its conditions, so it gets no record: it keeps working; restart the container to have one")

// endpoint writes the record of an attachment unless it has one, and that of
// its network. Meanwhile no other call adds or removes the attachment.
func (r *rebuilder) endpoint(ctx context.Context, id model.ID, o link.Owned) error {
	load := func() error {
		_, err := r.o.dir.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
		return err
	}
	if err := load(); !state.Missing(err) {
		return err
	}
	release, err := r.o.dir.Own(ctx, id.Network, id.ContainerID, id.IfName, state.Create)
	if err != nil {
		return err
	}
	defer release()
	if err := load(); !state.Missing(err) {
		return err
	}
	found, err := r.o.kernel.Find(ctx, o, r.ns)
	if errors.Is(err, netlink.ErrNotFound) {
		if owned, listErr := life.LinksOf(ctx, r.o.kernel, o.Owner); listErr == nil && owned[id].Index != o.Index {
			return nil // DEL has removed it since it was listed
		}
		return fmt.Errorf("%w: if no container has it: ip link del %s", err, o.Name)
	}
	if err != nil {
		return err
	}
	if slices.Contains(r.iptables, firewall.Key(id.String())) {
		return errors.Join(r.leaseAlone(ctx, id, found), errByIPTables)
	}
	n, err := r.network(ctx, id, found)
	if err != nil {
		return err
	}
	rec, err := r.record(ctx, n, id, found)
	if err != nil {
		return errors.Join(r.leaseAlone(ctx, id, found), err)
	}
	if err := r.o.dir.CreateEndpoint(rec); err != nil {
		return err
	}
	r.done = append(r.done, id)
	return nil
}

// record is what Join would have written.
func (r *rebuilder) record(ctx context.Context, n *engine.Network, id model.ID, f link.Found) (state.Endpoint, error) {
	if f.Netns == "" {
		return state.Endpoint{}, fmt.Errorf("%w: no file and no process tells of the one that %s leads to", model.ErrBadNetns, f.HostName)
	}
	ns, err := life.NetnsIDOf(f.Netns)
	if err != nil {
		return state.Endpoint{}, err
	}
	fw, ruled := r.rules.Endpoints[firewall.Key(id.String())]
	rec := state.Endpoint{
		Network: id.Network, ContainerID: id.ContainerID, IfName: id.IfName,
		Phase: state.PhaseReady, Boot: r.o.boot, Netns: f.Netns, NetnsID: state.NetnsID(ns), MountNS: life.MountNS(),
		Bridge: f.Bridge, HostName: f.HostName, MAC: f.MAC.String(),
		Rules: ruled || n.Config().NeedsRules(), Guard: n.Plan().GuardID(), Tunnel: n.Plan().SecureTunnel(), Spare: n.Plan().SpareTunnel(),
		Links: []state.Link{
			{Name: f.Bridge, MAC: f.BridgeMAC.String(), MTU: f.BridgeMTU},
			{Name: f.HostName, MAC: f.HostMAC.String(), MTU: f.MTU},
			{Name: id.IfName, MAC: f.MAC.String(), MTU: f.MTU, Netns: f.Netns},
		},
	}
	if f.IfName != id.IfName {
		rec.LinkName, rec.Links[2].Name = f.IfName, f.IfName
	}
	if fw.MAC != nil {
		rec.MAC = fw.MAC.String() // a container may have given itself another one
	}
	if rec.Rules {
		rec.Backend = string(model.BackendNFTables)
	}
	if !r.o.networks.HasNetwork(n.Name(), untoldConfig) { // else the configuration tells, once it is known
		rec.OwnRules = plan.OwnRules(n.Config())
	}
	if rec.Addresses, err = r.addresses(ctx, n, id, f, fw.Addrs); err != nil {
		return state.Endpoint{}, err
	}
	if len(rec.Addresses) > 0 {
		rec.IPAM, rec.DataDir = n.LeaseDir()
		rec.IPAM = cmp.Or(rec.IPAM, n.IPAMType())
	}
	rec.Ports = plan.SavedPorts(recordedPorts(fw.Ports, rec.Addrs()))
	rec.Names, err = r.names(ctx, id)
	return rec, err
}

// addresses returns those of an attachment. A container may have given itself
// more than it was leased; while the leases are there they tell.
func (r *rebuilder) addresses(ctx context.Context, n *engine.Network, id model.ID, f link.Found, ruled []netip.Addr) ([]state.Address, error) {
	has := f.Addrs
	if pool, ok := n.IPAM().(*address.Pool); ok {
		leases, err := pool.Lookup(ctx, id)
		if err != nil {
			return nil, err
		}
		if len(leases) > 0 {
			has = slices.DeleteFunc(slices.Clone(has), func(p netip.Prefix) bool {
				return !slices.Contains(leases, p.Addr()) && !slices.Contains(ruled, p.Addr())
			})
		}
	}
	var all []state.Address
	for _, p := range has {
		a := state.Address{Prefix: p}
		for _, b := range f.BridgeAddrs {
			outside := !a.Gateway.IsValid() && b.Addr().IsLinkLocalUnicast() && b.Addr().Is6() && p.Addr().Is6()
			if n.Config().HasGateway() && (b.Masked() == p.Masked() || outside) {
				a.Gateway = b.Addr()
			}
		}
		all = append(all, a)
	}
	slices.SortStableFunc(all, func(a, b state.Address) int { // ports go to the first
		return cmp.Compare(order(ruled, a.Prefix.Addr()), order(ruled, b.Prefix.Addr()))
	})
	return all, nil
}

// order is the place of a in all; one that is not there comes last.
func order(all []netip.Addr, a netip.Addr) int {
	if i := slices.Index(all, a); i >= 0 {
		return i
	}
	return len(all)
}

// recordedPorts are ports as the rules tell of them. To be published on any
// address of a family, or of both, is the same for a container that has one only.
func recordedPorts(ports []firewall.PortMap, addrs []netip.Addr) []model.PortMapping {
	has4, has6 := slices.ContainsFunc(addrs, netip.Addr.Is4), slices.ContainsFunc(addrs, netip.Addr.Is6)
	var all []model.PortMapping
	for _, p := range ports {
		m := model.PortMapping{
			Protocol: p.Protocol.String(), HostIP: p.HostIP, Sources: p.Sources,
			HostPort: int(p.HostPort), HostPortEnd: int(p.HostPortEnd), ContainerPort: int(p.ContainerPort),
		}
		if m.HostIP.IsUnspecified() && has4 != has6 {
			m.HostIP = netip.Addr{}
		}
		all = append(all, m)
	}
	return all
}
