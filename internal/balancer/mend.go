package balancer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall/balance"
	"github.com/libnet-cni/libnet/internal/publish"
	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/state"
)

// Lost says that the tables of services are gone or broken, though there are services.
func (s *Services) Lost(ctx context.Context) error {
	if s == nil {
		return nil
	}
	has := false // one with an address: of others are no rules
	err := s.dir.EachService(func(id state.ServiceID) bool {
		var r record
		_, err := s.dir.PeekService(id, &r, "", "")
		has = err == nil && len(r.VIPs) > 0
		return !has
	})
	if err != nil || !has {
		return err
	}
	whole, err := s.kernel().Whole(ctx)
	if err == nil && !whole {
		err = errors.New("rules of services are missing: lnctl repair puts them back")
	}
	return err
}

// Mend puts back what another program has removed: the tables of services, if they are gone or
// broken, and with elements also those that services lack by their records, which costs time with
// all of them. It says whether something was missing. A call that is at work, as it takes a
// container away, is no such program: services that seem to lack elements are looked at under their
// locks before anything is changed.
func (s *Services) Mend(ctx context.Context, elements bool) (missing bool, err error) {
	if s == nil {
		return false, nil
	}
	if s.Lost(ctx) != nil {
		ids, err := s.dir.Services()
		fresh, restoreErr := s.restore(ctx, ids)
		return fresh, errors.Join(err, restoreErr)
	}
	if !elements {
		return false, nil
	}
	seem, err := s.lacking(ctx)
	errs := []error{err}
	for i, id := range seem {
		if missing, err = s.lacks(ctx, id); missing {
			_, err = s.restore(ctx, seem[i:]) // what lacks nothing is not changed
		}
		if errs = append(errs, err); missing {
			break
		}
	}
	return missing, errors.Join(errs...)
}

// lacking are the services of which the kernel lacks elements that they have by their records, which
// are read without their locks: a call that is at work may be why.
func (s *Services) lacking(ctx context.Context) (seem []state.ServiceID, err error) {
	ids, err := s.dir.Services()
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	list, err := s.kernel().List(ctx)
	if err != nil {
		return nil, err
	}
	there := make(map[string]bool, len(list))
	for _, e := range list {
		there[slot(e)] = true
	}
	for _, id := range ids {
		elems, err := s.recorded(id)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(elems, func(e balance.Elem) bool { return !there[slot(e)] }) {
			seem = append(seem, id)
		}
	}
	return seem, nil
}

// lacks looks at one service under its lock.
func (s *Services) lacks(ctx context.Context, id state.ServiceID) (lacks bool, err error) {
	_, err = s.changeLocked(ctx, id, unix.LOCK_SH, func(c *changing) error {
		c.same = true
		want, err := s.wanted(c)
		if err != nil || len(c.VIPs) == 0 {
			return err
		}
		missing, _, err := s.kernel().Differs(ctx, want, nil)
		lacks = len(missing) > 0
		return err
	})
	return lacks, err
}

// Fault is something about a service that is not as the records say.
type Fault struct{ Service, Found string }

// String is both, for a line.
func (f Fault) String() string {
	if f.Service == "" {
		return f.Found
	}
	return f.Service + ": " + f.Found
}

// Faults compares every service with the kernel. It changes nothing. As calls may be at work, it
// looks again at what it finds.
func (s *Services) Faults(ctx context.Context) ([]Fault, error) {
	first, err := s.faults(ctx)
	if err != nil || len(first) == 0 {
		return first, err
	}
	again, err := s.faults(ctx)
	return slices.DeleteFunc(again, func(f Fault) bool {
		return !slices.ContainsFunc(first, func(g Fault) bool { return f.Service == g.Service })
	}), err
}

func (s *Services) faults(ctx context.Context) (all []Fault, err error) {
	list, err := s.kernel().List(ctx) // before the records, which have what comes first
	errs := []error{err}
	ids, err := s.dir.Services()
	errs = append(errs, err)
	known := map[string]bool{}
	for _, id := range ids {
		found, err := s.faultsOf(ctx, id, known)
		errs = append(errs, err)
		if len(found) > 0 {
			all = append(all, Fault{id.Network + "/" + id.Name, strings.Join(found, "; ")})
		}
	}
	if strays := strays(list, known); len(strays) > 0 {
		all = append(all, Fault{"", fmt.Sprintf("%d elements of no service, as %s", len(strays), strays[0])})
	}
	return all, errors.Join(errs...)
}

// strays are those elements in our sets that no service has.
func strays(list []balance.Elem, known map[string]bool) []balance.Elem {
	return slices.DeleteFunc(list, func(e balance.Elem) bool { return known[slot(e)] })
}

func slot(e balance.Elem) string { return e.Set.Name + "\x00" + string(e.Key) }

func (s *Services) faultsOf(ctx context.Context, id state.ServiceID, known map[string]bool) (found []string, err error) {
	dir, err := s.dir.LockService(ctx, id, state.OnlyExisting)
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Unlock()
	var r record
	if err := dir.Load(&r); errors.Is(err, state.ErrNotFound) {
		return nil, nil // the call that was to make it was killed
	} else if err != nil {
		return nil, err
	}
	backends, err := state.BackendsOf[service.Backend](dir)
	if err != nil || len(r.VIPs) == 0 {
		return nil, err
	}
	for _, b := range backends {
		if rec, err := s.dir.LoadEndpoint(r.Network, b.ContainerID, b.IfName); state.Missing(err) {
			found = append(found, "backend "+b.Key()+" is gone")
		} else if err == nil && !slices.Equal(rec.Addrs(), b.Addresses) {
			found = append(found, "backend "+b.Key()+" has other addresses now")
		}
	}
	recs, err := s.dir.Endpoints(r.Network)
	for _, rec := range recs {
		has := slices.ContainsFunc(backends, func(b service.Backend) bool { return b.ContainerID == rec.ContainerID && b.IfName == rec.IfName })
		if rec.Phase == state.PhaseReady && selects(id, rec) && !has {
			found = append(found, "container "+rec.ContainerID+" is no backend")
		}
	}
	if portErr := s.ports.VerifyService(ctx, publish.ServicePortsOf(r.Service, r.Device)); portErr != nil {
		found = append(found, strings.ReplaceAll(portErr.Error(), "\n", "; "))
	}
	lacks, addrErr := s.host.LacksServiceAddrs(r.holder(), r.VIPs)
	if len(lacks) > 0 && (len(backends) > 0 || r.Shared) {
		found = append(found, fmt.Sprintf("%s lacks the address %s", r.holder(), lacks[0]))
	}
	mac, macErr := s.host.DeviceMAC(r.Device)
	want := s.elements(r, backends, mac)
	for _, e := range want {
		known[slot(e)] = true
	}
	missing, _, diffErr := s.kernel().Differs(ctx, want, nil)
	if len(missing) > 0 {
		found = append(found, fmt.Sprintf("%d of %d rules are missing or changed, as %s", len(missing), len(want), missing[0]))
	}
	return found, errors.Join(err, addrErr, macErr, diffErr)
}

// Repair brings records and kernel of all services to what the attachments say, and removes
// elements of no service. It returns what it found.
func (s *Services) Repair(ctx context.Context) (repaired []Fault, err error) {
	if s == nil {
		return nil, nil
	}
	faults, err := s.Faults(ctx)
	if err != nil || len(faults) == 0 {
		return nil, err
	}
	ids, err := s.dir.Services()
	errs := []error{err}
	for _, id := range ids {
		errs = append(errs, s.weed(ctx, id), s.gather(ctx, id), s.mendPorts(ctx, id))
	}
	return faults, errors.Join(append(errs, s.Restore(ctx), s.sweep(ctx))...)
}

// sweep removes elements of no service. The services of all networks wait meanwhile.
func (s *Services) sweep(ctx context.Context) error {
	ids, err := s.dir.Services()
	if err != nil {
		return err
	}
	locked := map[string]bool{}
	for _, id := range ids { // in order of the networks
		if locked[id.Network] {
			continue
		}
		locked[id.Network] = true
		unlock, err := s.dir.LockServices(ctx, id.Network, unix.LOCK_EX)
		if errors.Is(err, state.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		defer unlock()
	}
	list, err := s.kernel().List(ctx)
	if err != nil || len(list) == 0 {
		return err
	}
	known, err := s.known()
	if err != nil {
		return err
	}
	if left := strays(list, known); len(left) > 0 {
		_, err = s.kernel().Apply(ctx, nil, left)
	}
	return err
}

// known are the elements of all services by their records, which are read without their locks.
func (s *Services) known() (map[string]bool, error) {
	known := map[string]bool{}
	ids, err := s.dir.Services()
	for _, id := range ids {
		elems, err := s.recorded(id)
		if err != nil {
			return nil, err
		}
		for _, e := range elems {
			known[slot(e)] = true
		}
	}
	return known, err
}

// recorded are the elements of a service by its record; none: it is gone. Their data are not to be
// looked at.
func (s *Services) recorded(id state.ServiceID) ([]balance.Elem, error) {
	var r record
	backends, err := state.ReadService[service.Backend](s.dir, id, &r)
	if state.Missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s.elements(r, backends, make(net.HardwareAddr, 6)), nil
}

// mendPorts has a service have the ports of the host that it publishes, and no others, unless
// another call is at work on the service.
func (s *Services) mendPorts(ctx context.Context, id state.ServiceID) error {
	container, ifName := service.Lease(id.Name)
	release, owned, err := s.dir.TryOwn(id.Network, container, ifName)
	if err != nil || !owned {
		return err
	}
	defer release()
	var r record
	if _, err := s.dir.PeekService(id, &r, "", ""); err != nil {
		if state.Missing(err) {
			err = nil
		}
		return err
	}
	want := publish.ServicePortsOf(r.Service, r.Device)
	if s.ports.VerifyService(ctx, want) == nil {
		return nil
	}
	if len(want.Ports) > 0 {
		if err := s.ports.TakeForService(ctx, want); err != nil {
			return err
		}
	}
	return s.ports.LeaveToService(ctx, want)
}

// weed takes backends out whose attachments are gone.
func (s *Services) weed(ctx context.Context, id state.ServiceID) error {
	return s.leave(ctx, id, func(b service.Backend) bool {
		_, err := s.dir.LoadEndpoint(id.Network, b.ContainerID, b.IfName)
		return state.Missing(err)
	})
}
