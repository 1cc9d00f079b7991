package balancer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/libnet-cni/libnet/internal/firewall/balance"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/state"
)

// Host is the part of the kernel beside the rules.
type Host interface {
	EnsureServiceAddrs(device string, addrs []netip.Addr) (net.HardwareAddr, error)
	EnsureLocalAddrs(addrs []netip.Addr) error
	RemoveServiceAddrs(device string, addrs []netip.Addr) error
	LacksServiceAddrs(device string, addrs []netip.Addr) ([]netip.Addr, error)
	DeviceMAC(device string) (net.HardwareAddr, error)
	SetHairpin(netns, ifName string) error
}

// Services are the services of this host. A nil Services has none.
type Services struct {
	dir  *state.Dir
	host Host

	once   sync.Once
	tables *balance.Tables // see kernel
}

// New opens nothing and costs nothing.
func New(dir *state.Dir, host Host) *Services { return &Services{dir: dir, host: host} }

// kernel is what of services is in nftables. It is made at the first call: most processes
// meet no service.
func (s *Services) kernel() *balance.Tables {
	s.once.Do(func() { s.tables = balance.New() })
	return s.tables
}

// Close closes the sockets that earlier calls left open, after the last of these.
func (s *Services) Close() error {
	s.once.Do(func() {})
	if s.tables == nil {
		return nil
	}
	return s.tables.Close()
}

// record is what is kept of a service.
type record struct {
	service.Service
	Device string // by which packets of the network's containers come to the host
	// Node is the name of this host, and Others are backends on other hosts, of a service that is
	// shared.
	Node   string            `json:",omitempty"`
	Others []service.Backend `json:",omitempty"`
	// Unsettled: a shared service that is new may lack containers of this host.
	Unsettled bool `json:",omitempty"`
}

func backendOf(rec state.Endpoint) service.Backend {
	b := service.Backend{ContainerID: rec.ContainerID, IfName: rec.IfName, Addresses: rec.Addrs()}
	if rec.Names != nil {
		b.Names = rec.Names.Own
	}
	return b
}

// Joined makes an attachment, which is complete and recorded, a backend of the services that
// select it. Without services on its network this is one look for a directory.
func (s *Services) Joined(ctx context.Context, rec state.Endpoint) error {
	if s == nil || rec.Names == nil || !s.dir.HasServices(rec.Network) {
		return nil
	}
	ids, err := s.dir.ServicesFor(rec.Network, rec.Names.Own)
	if err != nil || len(ids) == 0 {
		return err
	}
	if err := s.host.SetHairpin(rec.Netns, rec.Inside()); err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.change(ctx, id, joining(rec)); err != nil {
			return err
		}
	}
	return nil
}

func joining(rec state.Endpoint) func(*state.Service, *changing) error {
	return func(dir *state.Service, _ *changing) error {
		return dir.PutBackend(rec.ContainerID, rec.IfName, backendOf(rec))
	}
}

// Left takes an attachment, which is about to go, out of all services. Connections that it
// has end with it.
func (s *Services) Left(ctx context.Context, rec state.Endpoint) error {
	if s == nil || !s.dir.HasServices(rec.Network) {
		return nil
	}
	ids, err := s.dir.ServicesOf(rec.Network)
	if rec.Names != nil {
		ids, err = s.dir.ServicesFor(rec.Network, rec.Names.Own)
	}
	errs := []error{err}
	for _, id := range ids {
		errs = append(errs, s.change(ctx, id, leaving(rec.ContainerID, rec.IfName)))
	}
	return errors.Join(errs...)
}

func leaving(containerID, ifName string) func(*state.Service, *changing) error {
	return func(_ *state.Service, c *changing) error {
		c.leave(func(b service.Backend) bool { return b.ContainerID == containerID && b.IfName == ifName })
		return nil
	}
}

// leave has backends go. Their records go last: a call that is killed is then done anew.
func (c *changing) leave(is func(service.Backend) bool) {
	for _, b := range c.before {
		if is(b) {
			c.left = append(c.left, b)
		}
	}
	c.same = len(c.left) == 0
	left := c.left
	c.then = func(dir *state.Service) error {
		var errs []error
		weights := maps.Clone(c.Weights)
		for _, b := range left {
			delete(weights, b.ContainerID) // it is for this container alone
			errs = append(errs, dir.DeleteBackend(b.ContainerID, b.IfName))
		}
		if len(weights) != len(c.Weights) && !c.Shared { // else ln-agent does that

			c.Weights = weights
			errs = append(errs, dir.Save(c.record))
		}
		return errors.Join(errs...)
	}
}

// changing is a service that is changed under its lock.
type changing struct {
	record
	before []service.Backend
	was    record            // whose elements go
	left   []service.Backend // the same
	same   bool              // nothing changes
	// then removes the records of those that left, after the kernel has forgotten them; nil:
	// none did.
	then func(*state.Service) error
}

// change calls fn with a service, under its lock, and brings the kernel to what the records
// then say. One that is gone meanwhile is success. What the records cannot be brought to, as
// the kernel refuses it, is an error; the next change, or repair, tries again.
func (s *Services) change(ctx context.Context, id state.ServiceID, fn func(*state.Service, *changing) error) error {
	fresh, err := s.changeLocked(ctx, id, fn)
	if err != nil {
		return fmt.Errorf("service %q of network %q: %w", id.Name, id.Network, err)
	}
	if fresh { // the elements of the others are gone
		return s.Restore(ctx)
	}
	return nil
}

func (s *Services) changeLocked(ctx context.Context, id state.ServiceID, fn func(*state.Service, *changing) error) (fresh bool, err error) {
	dir, err := s.dir.LockService(ctx, id, state.OnlyExisting)
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer dir.Unlock()
	var c changing
	if err := dir.Load(&c.record); errors.Is(err, state.ErrNotFound) {
		return false, nil // it is being made: that call looks for backends itself
	} else if err != nil {
		return false, err
	}
	c.was = c.record
	if c.before, err = state.BackendsOf[service.Backend](dir); err != nil {
		return false, err
	}
	if err := fn(dir, &c); err != nil || c.same {
		return false, err
	}
	backends, err := state.BackendsOf[service.Backend](dir)
	if err != nil {
		return false, err
	}
	if c.then == nil {
		return s.bring(ctx, c, backends)
	}
	fresh, err = s.bring(ctx, c, slices.DeleteFunc(backends, func(b service.Backend) bool {
		return slices.ContainsFunc(c.left, func(l service.Backend) bool { return l.Key() == b.Key() })
	}))
	if err != nil {
		return fresh, err
	}
	if err := c.then(dir); err != nil || len(c.VIPs) > 0 {
		return fresh, err
	}
	return fresh, s.dir.NoteServices()
}

// bring brings the kernel to a service with these backends.
func (s *Services) bring(ctx context.Context, c changing, backends []service.Backend) (fresh bool, err error) {
	if len(c.VIPs) == 0 { // its name leads to the backends
		return false, s.dir.NoteServices()
	}
	mac, err := s.ensureAddrs(c.record)
	if errors.Is(err, netlink.ErrNotFound) { // the bridge comes with the first container
		err = nil
	}
	if err != nil {
		return false, err
	}
	want := s.elements(c.record, backends, mac)
	gone := append(s.keys(c.record), s.keys(c.was)...)
	for _, b := range c.left {
		if err := s.forget(&gone, c.was, b); err != nil {
			return false, err
		}
	}
	return s.kernel().Apply(ctx, want, gone)
}

// forget adds to gone the elements of a backend that no other service needs.
func (s *Services) forget(gone *[]balance.Elem, of record, b service.Backend) error {
	needed := map[string]bool{}
	others, err := s.dir.ServicesFor(of.Network, b.Names)
	if err != nil {
		return err
	}
	for _, id := range others {
		if id.Name == of.Name {
			continue
		}
		other, has, err := s.peek(id, b)
		if err != nil {
			return err
		}
		if !has {
			continue
		}
		for _, e := range s.elementsOf(other, b, nil) {
			needed[e.String()] = true
		}
	}
	for _, e := range s.elementsOf(of, b, nil) {
		if !needed[e.String()] {
			*gone = append(*gone, e)
		}
	}
	return nil
}

// peek reads another service, without its lock, and says whether it has a backend.
func (s *Services) peek(id state.ServiceID, b service.Backend) (record, bool, error) {
	var r record
	has, err := s.dir.PeekService(id, &r, b.ContainerID, b.IfName)
	if errors.Is(err, state.ErrNotFound) {
		return r, false, nil
	}
	return r, has, err
}

// elements are those of a service with these backends on this host. Without a MAC address there is no
// bridge, and no frame.
func (s *Services) elements(r record, backends []service.Backend, mac net.HardwareAddr) (all []balance.Elem) {
	everywhere := slices.Concat(backends, r.Others)
	slices.SortFunc(everywhere, func(a, b service.Backend) int { return strings.Compare(a.Key(), b.Key()) })
	for _, vip := range r.VIPs {
		all = append(all, s.kernel().Address(vip, r.Device)...)
		for _, p := range r.Ports {
			at := balance.Port{Addr: vip, Protocol: p.Protocol, Port: p.Port}
			all = append(all, s.kernel().Count(at))
			all = append(all, s.buckets(r, at, p.Target, everywhere)...)
		}
	}
	for _, b := range backends {
		for _, e := range s.elementsOf(r, b, mac) {
			if mac != nil || e.Set.Data == nil {
				all = append(all, e)
			}
		}
	}
	return ruleset.Dedupe(all) // two ports may lead to one
}

// elementsOf are those of one backend beside its buckets.
func (s *Services) elementsOf(r record, b service.Backend, mac net.HardwareAddr) (all []balance.Elem) {
	for _, a := range b.Addresses {
		if !slices.ContainsFunc(r.VIPs, func(vip netip.Addr) bool { return vip.Is4() == a.Is4() }) {
			continue
		}
		all = append(all, s.kernel().Self(a))
		for _, p := range r.Ports {
			all = append(all, s.kernel().Bridged(balance.Port{Addr: a, Protocol: p.Protocol, Port: p.Target}, mac))
		}
	}
	return all
}

// buckets are those of one port.
func (s *Services) buckets(r record, at balance.Port, target uint16, backends []service.Backend) (all []balance.Elem) {
	var shares []service.Share
	var to []netip.AddrPort
	for _, b := range backends {
		i := slices.IndexFunc(b.Addresses, func(a netip.Addr) bool { return a.Is4() == at.Addr.Is4() })
		if w := r.Weight(b.ContainerID); i >= 0 && w > 0 {
			shares, to = append(shares, service.Share{Key: b.Key(), Weight: w}), append(to, netip.AddrPortFrom(b.Addresses[i], target))
		}
	}
	put := func(kind balance.Kind, slots []int) {
		for number, i := range slots {
			if i >= 0 {
				all = append(all, s.kernel().Bucket(kind, at, number, to[i]))
			}
		}
	}
	if r.Affinity == service.AffinityClient {
		clients := service.AssignClients(shares)
		put(balance.Sticky, clients[:])
		return all
	}
	slots := service.Assign(shares)
	put(balance.Spread, slots.First[:])
	put(balance.Rest, slots.Rest[:])
	return all
}

// keys are all elements that a service may have but those of its backends.
func (s *Services) keys(r record) (all []balance.Elem) {
	for _, vip := range r.VIPs {
		all = append(all, s.kernel().Address(vip, r.Device)...)
		for _, p := range r.Ports {
			at := balance.Port{Addr: vip, Protocol: p.Protocol, Port: p.Port}
			all = append(all, s.kernel().Count(at))
			add := func(kind balance.Kind, n int) {
				for i := range n {
					all = append(all, s.kernel().Bucket(kind, at, i, netip.AddrPort{}))
				}
			}
			if r.Affinity == service.AffinityClient {
				add(balance.Sticky, service.ClientBuckets)
			} else {
				add(balance.Spread, service.Buckets)
				add(balance.Rest, service.Buckets)
			}
		}
	}
	return all
}
