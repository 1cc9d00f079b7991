package balancer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall/balance"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/state"
)

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
	// Was are definitions of before, of which the kernel may still have something.
	Was []service.Service `json:",omitempty"`
}

// changing is a service that is changed under its lock. What comes is in the records before it is
// in the kernel, and what goes leaves the kernel before the records: a call that is killed is
// then done anew by the next one.
type changing struct {
	record
	dir    *state.Service
	was    record // as it was
	before []service.Backend
	left   []service.Backend // go
	former *record           // of a shared service, as the kernel has it; nil: it has record
	// exclusive: elements that other services may need can be taken away. removed: all goes.
	// same: nothing changes.
	exclusive, removed, same bool
}

// change calls fn with a service, under its lock, and brings the kernel to what the records
// then say. One that is gone meanwhile is success. What the records cannot be brought to, as
// the kernel refuses it, is an error; the next change, or repair, tries again.
//
// The elements that say how a backend is reached are shared by the services that have it. how is
// unix.LOCK_EX for a change that may take some away, and looks whether another service needs
// them: none comes or goes meanwhile. It is LOCK_SH for any other.
func (s *Services) change(ctx context.Context, id state.ServiceID, how int, fn func(*changing) error) error {
	fresh, err := s.changeLocked(ctx, id, how, fn)
	if err != nil {
		return fmt.Errorf("service %q of network %q: %w", id.Name, id.Network, err)
	}
	if fresh { // the elements of the others are gone
		return s.Restore(ctx)
	}
	return nil
}

func (s *Services) changeLocked(ctx context.Context, id state.ServiceID, how int, fn func(*changing) error) (fresh bool, err error) {
	dir, err := s.dir.LockService(ctx, id, state.OnlyExisting)
	if err == nil {
		defer dir.Unlock()
		var unlock func()
		if unlock, err = s.dir.LockServices(ctx, id.Network, how); err == nil {
			defer unlock()
		}
	}
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	c := changing{dir: dir, exclusive: how == unix.LOCK_EX}
	if err := dir.Load(&c.record); errors.Is(err, state.ErrNotFound) {
		return false, nil // it is being made: that call looks for backends itself
	} else if err != nil {
		return false, err
	}
	c.was = c.record
	if c.before, err = state.BackendsOf[service.Backend](dir); err != nil {
		return false, err
	}
	if err := fn(&c); err != nil || c.same {
		return false, err
	}
	if fresh, err = s.bring(ctx, &c); err != nil {
		return fresh, err
	}
	return fresh, s.settle(&c)
}

// bring brings the kernel to the service as it is now.
func (s *Services) bring(ctx context.Context, c *changing) (fresh bool, err error) {
	backends, err := state.BackendsOf[service.Backend](c.dir)
	if err != nil || len(c.VIPs) == 0 {
		return false, err
	}
	gone, err := s.going(c)
	if err != nil {
		return false, err
	}
	if c.removed {
		return s.takeAway(ctx, gone)
	}
	backends = slices.DeleteFunc(backends, func(b service.Backend) bool {
		return slices.ContainsFunc(c.left, func(l service.Backend) bool { return l.Key() == b.Key() })
	})
	mac, err := s.ensureAddrs(c.record)
	if err != nil && !errors.Is(err, netlink.ErrNotFound) { // the bridge comes with the first container
		return false, err
	}
	return s.kernel().Apply(ctx, s.elements(c.record, backends, mac), gone)
}

// going returns the elements that a change may take away; some of them it puts in place again.
func (s *Services) going(c *changing) ([]balance.Elem, error) {
	gone, left := s.keys(c.record), c.left
	if c.removed {
		left = c.before
	}
	for _, b := range left {
		if err := s.forget(&gone, c.record, b); err != nil {
			return nil, err
		}
	}
	former := c.record
	if c.former != nil {
		former = *c.former
	}
	gone = append(gone, s.ledToAll(c.record, left)...)
	gone = append(gone, s.ledToAll(former, former.Others)...)
	for _, b := range former.Others {
		if err := s.forgetFar(&gone, former, b); err != nil {
			return nil, err
		}
	}
	for _, was := range c.Was {
		old := record{Service: was, Device: c.Device}
		gone = append(gone, s.keys(old)...)
		gone = append(gone, s.ledToAll(old, slices.Concat(c.before, former.Others))...)
		for _, b := range c.before {
			if !c.exclusive {
				break
			}
			if err := s.forget(&gone, old, b); err != nil {
				return nil, err
			}
		}
	}
	return gone, nil
}

// takeAway removes elements, unless our tables are gone.
func (s *Services) takeAway(ctx context.Context, gone []balance.Elem) (fresh bool, err error) {
	_, there, err := s.kernel().Differs(ctx, nil, gone)
	if err != nil || len(there) == 0 {
		return false, err
	}
	return s.kernel().Apply(ctx, nil, there)
}

// settle removes the records of what the kernel has forgotten.
func (s *Services) settle(c *changing) error {
	if c.removed {
		return errors.Join(s.host.RemoveServiceAddrs(c.holder(), c.VIPs), c.dir.Remove())
	}
	var errs []error
	weights := maps.Clone(c.Weights)
	for _, b := range c.left {
		delete(weights, b.ContainerID) // it is for this container alone
		errs = append(errs, c.dir.DeleteBackend(b.ContainerID, b.IfName))
	}
	if len(weights) != len(c.Weights) && !c.Shared || c.exclusive && len(c.Was) > 0 { // of a shared one ln-agent keeps the weights
		if !c.Shared {
			c.Weights = weights
		}
		c.Was = nil
		errs = append(errs, c.dir.Save(c.record))
	}
	if len(c.VIPs) == 0 { // its name leads to the backends
		errs = append(errs, s.dir.NoteServices())
	}
	return errors.Join(errs...)
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
			needed[slot(e)] = true
		}
	}
	for _, e := range s.elementsOf(of, b, nil) {
		if !needed[slot(e)] {
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

// Restore brings the kernel to what the records say of all services.
func (s *Services) Restore(ctx context.Context) error {
	if s == nil {
		return nil
	}
	ids, err := s.dir.Services()
	errs := []error{err}
	for round := 0; round < maxRounds; round++ {
		again := false
		for _, id := range ids {
			fresh, err := s.changeLocked(ctx, id, unix.LOCK_SH, func(*changing) error { return nil })
			if err != nil {
				errs = append(errs, fmt.Errorf("service %q of network %q: %w", id.Name, id.Network, err))
			}
			again = again || fresh && len(ids) > 1
		}
		if !again { // else what came before was lost with the tables
			break
		}
	}
	return errors.Join(errs...)
}

// maxRounds bounds how often all is begun anew as the tables went meanwhile.
const maxRounds = 5
