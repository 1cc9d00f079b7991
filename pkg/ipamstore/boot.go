package ipamstore

import (
	"errors"
	"net/netip"
	"slices"
)

// newBoot settles what an earlier boot left in t. With RebootRelease, leases
// that are proven to be older than this boot are removed:
//
//   - all, if no program has changed the directory since our index was last right
//     (known), as that was before the reboot;
//   - else those the index of the earlier boot lists, if their file is still
//     the same;
//   - and those whose file was last written before the machine started.
//
// Any other lease may be host-local's of this boot and is honoured.
func (x *session) newBoot(t *table, known bool) error {
	for _, e := range t.entries {
		e.Netns, e.NetnsID = "", "" // no namespace survives
	}
	if x.s.conf.RebootPolicy == RebootKeep {
		return x.idx.remove(coolingFile)
	}
	old := x.stale(t, known)
	gone := map[netip.Addr]bool{}
	var errs []error
	for o, e := range t.entries {
		e.addrs = slices.DeleteFunc(e.addrs, func(l leased) bool {
			if !old(o, l) {
				return false
			}
			if err := x.dir.remove(l.addr.String()); err != nil {
				errs = append(errs, err)
				return false
			}
			gone[l.addr] = true
			return true
		})
		if len(e.addrs) == 0 {
			delete(t.entries, o)
		}
	}
	t.files = slices.DeleteFunc(t.files, func(h Held) bool { return gone[h.Addr] })
	return errors.Join(append(errs, x.idx.remove(coolingFile))...)
}

// stale returns the test by which newBoot picks leases of an earlier boot.
func (x *session) stale(t *table, known bool) func(Owner, leased) bool {
	known = known && x.state.boot != ""
	started := x.s.bootStart().UnixNano()
	return func(o Owner, l leased) bool {
		old := t.listed[o]
		listed := old != nil && x.state.boot != "" && old.has(l)
		return known || listed || l.since < started
	}
}
