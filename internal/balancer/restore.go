package balancer

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/state"
)

// Restore brings the kernel to what the records say of all services.
func (s *Services) Restore(ctx context.Context) error {
	if s == nil {
		return nil
	}
	ids, err := s.dir.Services()
	_, restoreErr := s.restore(ctx, ids)
	return errors.Join(err, restoreErr)
}

// restore is Restore for these services, in the order of dir.Services. fresh: the tables were not
// there, and are.
func (s *Services) restore(ctx context.Context, ids []state.ServiceID) (fresh bool, err error) {
	var errs []error
	for range maxRounds {
		again := false
		for rest := ids; len(rest) > 0; {
			n, now, err := s.restoreSome(ctx, rest)
			if err != nil { // which of them it was
				now, err = s.restoreEach(ctx, rest[:n])
			}
			fresh, rest, again, errs = fresh || now, rest[n:], again || now && len(ids) > 1, append(errs, err)
		}
		if !again { // else what came before was lost with the tables
			break
		}
	}
	return fresh, errors.Join(errs...)
}

// maxRounds bounds how often all is begun anew as the tables went meanwhile.
const maxRounds = 5

// restoreEach is Restore for these services, one by one.
func (s *Services) restoreEach(ctx context.Context, ids []state.ServiceID) (fresh bool, err error) {
	var errs []error
	for _, id := range ids {
		one, err := s.changeLocked(ctx, id, unix.LOCK_SH, func(*changing) error { return nil })
		if err != nil {
			errs = append(errs, fmt.Errorf("service %q of network %q: %w", id.Name, id.Network, err))
		}
		fresh = fresh || one
	}
	return fresh, errors.Join(errs...)
}

// restoreSome is Restore for the first n of these services, which are of one network, together.
func (s *Services) restoreSome(ctx context.Context, ids []state.ServiceID) (n int, fresh bool, err error) {
	var all []*changing
	for ports := 0; n < len(ids) && ids[n].Network == ids[0].Network && ports < mostTogether; {
		id := ids[n]
		n++
		dir, err := s.dir.LockService(ctx, id, state.OnlyExisting)
		if errors.Is(err, state.ErrNotFound) {
			continue
		}
		if err != nil {
			return n, false, err
		}
		defer dir.Unlock()
		c := &changing{dir: dir}
		if err := dir.Load(&c.record); errors.Is(err, state.ErrNotFound) {
			continue
		} else if err != nil {
			return n, false, err
		}
		if c.was, all = c.record, append(all, c); len(c.VIPs) > 0 {
			ports += len(c.Ports) + len(c.Published)
		}
	}
	if len(all) == 0 {
		return n, false, nil
	}
	unlock, err := s.dir.LockServices(ctx, ids[0].Network, unix.LOCK_SH)
	if err != nil {
		return n, false, err
	}
	defer unlock()
	for _, c := range all {
		if c.before, err = state.BackendsOf[service.Backend](c.dir); err != nil {
			return n, false, err
		}
	}
	if fresh, err = s.bring(ctx, all...); err != nil {
		return n, fresh, err
	}
	errs := make([]error, len(all))
	for i, c := range all {
		errs[i] = s.settle(c)
	}
	return n, fresh, errors.Join(errs...)
}
