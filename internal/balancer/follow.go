package balancer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/publish"
	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/state"
)

// Outcome is what came of Follow for one service.
type Outcome struct {
	// Left are the backends on other hosts that it has no more: connections to them are in
	// conntrack still.
	Left []service.Backend
	// Drained are the backends, on whatever host, that get no new connections any more, and did.
	Drained []service.Backend
	// Named says that Note is to be called, after this call or later ones.
	Named bool
	Err   error
}

// Follow brings records and kernel to definitions and the backends on other hosts; the outcomes are
// in the order of all. Services of one network are changed together, as many as one transaction
// may have: a call that is killed leaves them either as before or as after, and the next one does
// the rest. What is as the record says already is not looked at: Restore is for that. A service of
// that name which is not shared is ErrExists, and stays. One that selects another name, or has
// other addresses, is another service: Unfollow comes first.
func (s *Services) Follow(ctx context.Context, all ...Followed) []Outcome {
	did, order := make([]Outcome, len(all)), make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { // the order of locks
		a, b := all[i], all[j]
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Select, b.Select))
	})
	for len(order) > 0 {
		n, ports := 0, 0
		for n < len(order) && ports < mostTogether && all[order[n]].Network == all[order[0]].Network {
			ports += len(all[order[n]].Ports) + len(all[order[n]].Published)
			n++
		}
		some := make([]Followed, n)
		for i, at := range order[:n] {
			some[i] = all[at]
		}
		for i, one := range s.followSome(ctx, some) {
			did[order[i]] = one
		}
		order = order[n:]
	}
	return did
}

// mostTogether bounds how many ports are changed in one transaction, each of which has some 130
// elements: an ADD or DEL of a container behind one of the services waits meanwhile.
const mostTogether = 64

// followSome is Follow for a few services of one network. If they cannot be changed together, each
// is changed alone.
func (s *Services) followSome(ctx context.Context, these []Followed) []Outcome {
	some := make([]*following, len(these))
	fresh, err := s.followOwned(ctx, these, some)
	if err != nil && len(these) > 1 {
		var did []Outcome
		for _, one := range these {
			did = append(did, s.followSome(ctx, []Followed{one})...)
		}
		return did
	}
	did, fault := make([]Outcome, len(these)), err
	if err == nil && fresh {
		err = s.Restore(ctx)
	}
	for i, f := range some {
		err := err
		if err == nil && f.err == nil {
			err = s.followed(ctx, f)
		}
		did[i].Named = f.made || len(f.VIPs) == 0 && !f.same
		if fault == nil && f.err == nil { // kernel and record have it, whatever else fails
			did[i].Left, did[i].Drained = f.lost()
		}
		if err = errors.Join(err, f.err, f.portErr); err != nil {
			did[i].Err = fmt.Errorf("service %q of network %q: %w", f.Name, f.Network, err)
		}
	}
	return did
}

// lost are the backends that a change has taken away, and those that it has drained.
func (f *following) lost() (left, drained []service.Backend) {
	left = slices.DeleteFunc(slices.Clone(f.was.Others), func(b service.Backend) bool {
		return slices.ContainsFunc(f.Others, func(o service.Backend) bool { return o.Key() == b.Key() && o.Node == b.Node })
	})
	drained = slices.DeleteFunc(slices.Concat(f.before, f.Others), func(b service.Backend) bool {
		return f.was.Weight(b.ContainerID) == 0 || f.Weight(b.ContainerID) > 0
	})
	return left, drained
}

// followOwned takes the ports of the services, and brings kernel and records to these.
func (s *Services) followOwned(ctx context.Context, these []Followed, some []*following) (fresh bool, err error) {
	for i, f := range these {
		some[i] = &following{}
		release, err := s.takePorts(ctx, idOf(f.Service), &f)
		defer release()
		some[i].portErr = err
		some[i].record = record{Service: f.Service, Device: f.Device, Node: f.Node, Others: f.Others, Well: f.Well}
	}
	return s.followLocked(ctx, some)
}

// followed does what is left to do for a service once kernel and record are as they are to be.
func (s *Services) followed(ctx context.Context, f *following) error {
	id := idOf(f.Service)
	if f.Unsettled {
		if err := s.gather(ctx, id); err != nil {
			return err
		}
		if err := s.settled(ctx, id); err != nil {
			return err
		}
	}
	if !f.same && len(f.was.Published)+len(f.Published) > 0 {
		return s.leavePorts(ctx, publish.ServicePortsOf(f.Service, f.Device))
	}
	return nil
}

// following is a change of a shared service.
type following struct {
	changing
	made bool // it is new on this host, or the call that made it was killed
	// err keeps it from being changed; portErr only from having ports of this host.
	err, portErr error
}

// followLocked brings kernel and records to services under their locks. The records are written
// last: if they are as they are to be, so is the kernel. That of a service which is new has to be
// there first, so that ADD finds it; it says that it is not settled then.
func (s *Services) followLocked(ctx context.Context, some []*following) (fresh bool, err error) {
	var work []*following
	for _, f := range some {
		dir, err := s.dir.LockService(ctx, idOf(f.Service), state.Create)
		if err != nil {
			return false, err
		}
		defer dir.Unlock()
		f.dir = dir
		if f.err = f.begin(); f.err != nil && !errors.Is(f.err, ErrExists) {
			return false, f.err
		}
		if f.err == nil && !f.same {
			work = append(work, f)
		}
	}
	if len(work) == 0 {
		return false, nil
	}
	if err := s.expect(work); err != nil {
		return false, err
	}
	how, all := unix.LOCK_SH, make([]*changing, len(work))
	for i, f := range work {
		was := f.was
		f.Was, f.former = []service.Service{was.Service}, &was
		if f.exclusive = !reflect.DeepEqual(was.Ports, f.Ports); f.exclusive {
			how = unix.LOCK_EX
		}
		all[i] = &f.changing
	}
	unlock, err := s.dir.LockServices(ctx, work[0].Network, how)
	if err != nil {
		return false, err
	}
	defer unlock()
	for _, f := range work {
		if f.before, err = state.BackendsOf[service.Backend](f.dir); err != nil {
			return false, err
		}
	}
	if fresh, err = s.bring(ctx, all...); err != nil {
		return fresh, err
	}
	for _, f := range work {
		f.Was = nil // the kernel has forgotten it
		if err := f.dir.Save(f.record); err != nil {
			return fresh, err
		}
	}
	return fresh, nil
}

// begin reads the record of before, and writes that of a service which is new.
func (f *following) begin() error {
	switch err := f.dir.Load(&f.was); {
	case state.Missing(err):
		f.made, f.Unsettled, f.fresh = true, true, true
		return errors.Join(f.dir.ClearBackends(), f.dir.Save(f.record))
	case err != nil:
		return err
	case !f.was.Shared:
		return fmt.Errorf("%w: this host has one of that name to itself", ErrExists)
	}
	f.made, f.Unsettled = f.was.Unsettled, f.was.Unsettled
	f.same = !f.made && reflect.DeepEqual(f.was, f.record)
	return nil
}

// expect has new services be settled with their records if no container of this host can be
// behind them. Each ADD that ends from now on finds them.
func (s *Services) expect(some []*following) error {
	if !slices.ContainsFunc(some, func(f *following) bool { return f.made }) {
		return nil
	}
	recs, err := s.dir.Endpoints(some[0].Network)
	if errors.Is(err, state.ErrCorrupt) {
		err = nil // set aside; doctor tells
	}
	for _, f := range some {
		f.Unsettled = f.made && slices.ContainsFunc(recs, func(rec state.Endpoint) bool { return selects(idOf(f.Service), rec) })
	}
	return err
}

// settled notes that a service that is new has all its containers of this host.
func (s *Services) settled(ctx context.Context, id state.ServiceID) error {
	dir, err := s.dir.LockService(ctx, id, state.OnlyExisting)
	if err != nil {
		return err
	}
	defer dir.Unlock()
	var r record
	if err := dir.Load(&r); err != nil {
		return err
	}
	r.Unsettled = false
	return dir.Save(r)
}
