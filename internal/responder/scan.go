package responder

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// each calls fn with all that has an owner.
func (m *maps) each(fn func(k key, page value, s slot)) error {
	return m.names.Each(func(k, v []byte) {
		if key(k).kind() == kindPTR {
			fn(k, v, slot{owner: value(v).owner()})
			return
		}
		for _, s := range value(v).slots() {
			fn(k, v, s)
		}
	})
}

// removeOwners removes all that some owners have, which takes as long as there is much in the
// map.
func (m *maps) removeOwners(gone func(owner uint64) bool) error {
	var found []key
	err := m.each(func(k key, _ value, s slot) {
		if gone(s.owner) {
			found = append(found, slices.Clone(k).page(0))
		}
	})
	errs := []error{err}
	for _, k := range found {
		if k.kind() == kindPTR {
			errs = append(errs, m.names.Delete(k))
			continue
		}
		errs = append(errs, m.edit(k, func(have []slot) []slot {
			return slices.DeleteFunc(have, func(s slot) bool { return gone(s.owner) })
		}))
	}
	return errors.Join(errs...)
}

// verify compares what a member wants with what is there.
func (m *maps) verify(member *Member) error {
	var errs []error
	for _, e := range member.entries() {
		pages, have, err := m.pagesOf(e.key)
		if err != nil {
			return err
		}
		lacks := slices.ContainsFunc(e.slots, func(s slot) bool { return !slices.Contains(have, s) })
		if want := newPointer(e.owner, e.pointer); want != nil {
			lacks = len(pages) == 0 || string(pages[0]) != string(want)
		}
		if lacks {
			errs = append(errs, fmt.Errorf("%w: %s is missing, or leads elsewhere", ErrDifferent, e.key.what()))
		}
	}
	return errors.Join(errs...)
}

// what is a key in words.
func (k key) what() string {
	switch k.kind() {
	case kindLink:
		return "the link"
	case kindContainer:
		return "the network of the container"
	}
	return "name " + k.name()
}

// inWords is what an owner has of a key; empty: no address.
func inWords(k key, s slot) string {
	switch k.kind() &^ ofHost {
	case kind4:
		return k.what() + " for " + netip.AddrFrom4([4]byte(s.data[:4])).String()
	case kind6:
		return k.what() + " for " + netip.AddrFrom16(s.data).String()
	}
	return ""
}
