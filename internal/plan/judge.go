package plan

import (
	"errors"
	"fmt"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// Judged joins what was found of a thing. It is ErrDifferent if one of them
// is a difference; else what could not be looked at is all that is known.
func Judged(what string, found ...error) error {
	err := errors.Join(distinct(found)...)
	switch {
	case err == nil:
		return nil
	case Differs(err):
		return fmt.Errorf("%w: %s: %w", model.ErrDifferent, what, err)
	}
	return fmt.Errorf("could not check %s: %w", what, err)
}

// distinct leaves out errors that say what one before says: that a bridge is missing
// both it and its port tell.
func distinct(found []error) []error {
	var all []error
	said := map[string]bool{}
	for _, err := range found {
		if err == nil {
			continue
		}
		parts := []error{err}
		if joined, is := err.(interface{ Unwrap() []error }); is && errors.Join(joined.Unwrap()...).Error() == err.Error() {
			parts = joined.Unwrap()
		}
		for _, part := range parts {
			if !said[part.Error()] {
				said[part.Error()] = true
				all = append(all, part)
			}
		}
	}
	return all
}

// Differs says whether an error of a Verify of the kernel, the firewall or the
// IPAM is, or has among others, a difference.
func Differs(err error) bool {
	return slices.ContainsFunc([]error{
		model.ErrDifferent, netlink.ErrDifferent, netlink.ErrNotFound, link.ErrNotBridge,
		firewall.ErrMissing, firewall.ErrConflict, firewall.ErrChanged, ipamstore.ErrNotFound, ipamstore.ErrMismatch,
	}, func(d error) bool { return errors.Is(err, d) })
}
