package responder

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/bpf"
)

// entry is what an owner wants of a key: slots of its own, or a name.
type entry struct {
	key     key
	owner   uint64
	slots   []slot
	pointer string
}

// hostOwner is the owner of the host's names on a network.
func hostOwner(network string) uint64 { return hash("host of " + network) }

// entries are all that a member has. Names that are too long for a key it does not have.
func (member *Member) entries() (all []entry) {
	if member.Owner == "" {
		return nil
	}
	owner, host := hash(member.Owner), hostOwner(member.Network)
	all = []entry{{key: numbered(kindContainer, hash(member.Container)), owner: owner, slots: []slot{member.slot(0)}}}
	if member.Link != 0 {
		all = append(all, entry{key: numbered(kindLink, uint64(member.Link)), owner: owner, slots: []slot{member.slot(hash(member.Container))}})
	}
	ends := member.ends()
	add := func(name string, kind byte, owner uint64, addrs []netip.Addr) {
		e := entry{key: keyOf(member.Network, kind, name), owner: owner}
		for _, a := range addrs {
			if a.Is4() == (kind&^ofHost == kind4) {
				e.slots = append(e.slots, slotOf(owner, a))
			}
		}
		if e.key != nil && e.slots != nil {
			all = append(all, e)
		}
	}
	for _, kind := range []byte{kind4, kind6} {
		for i := len(ends) - 1; i >= 0; i-- { // "gateway" is the host's last one: see Put
			for _, name := range member.Names {
				add(name+ends[i], kind, owner, member.Addresses)
			}
			if i > 0 {
				add("host"+ends[i], kind|ofHost, host, member.Gateways)
			}
			add("gateway"+ends[i], kind|ofHost, host, member.Gateways)
		}
	}
	if len(member.Names) == 0 {
		return all
	}
	for _, a := range member.Addresses {
		k := keyOf(member.Network, kindPTR, reverse(a))
		all = append(all, entry{key: k, owner: owner, pointer: member.Names[0] + ends[len(ends)-1]})
	}
	return all
}

// ends are what stands behind a name.
func (member *Member) ends() []string {
	ends := []string{"", "." + member.Network}
	if member.Domain != "" && member.Domain != member.Network {
		ends = append(ends, "."+member.Domain)
	}
	return ends
}

// hostKeys are those of the host's names on a member's network. The one that Put makes last comes
// first.
func (member *Member) hostKeys() (all []key) {
	for _, kind := range []byte{kind4, kind6} {
		for _, end := range member.ends() {
			for _, name := range []string{"gateway", "host"} {
				if k := keyOf(member.Network, kind|ofHost, name+end); k != nil {
					all = append(all, k)
				}
			}
		}
	}
	return all
}

// slot has the network, and another number.
func (member *Member) slot(n uint64) slot {
	s := slot{owner: hash(member.Owner)}
	copy(s.data[:], bytesOf(hash(member.Network)))
	copy(s.data[8:], bytesOf(n))
	return s
}

// set gives a key what its owner wants of it.
func (m *maps) set(e entry) error {
	if e.key.kind() == kindPTR {
		return m.setPointer(e)
	}
	if n := len(e.slots); n > 0 && n <= slots { // mostly the owner is the only one
		if err := m.names.Create(e.key, newValue(1, e.slots)); !errors.Is(err, bpf.ErrExists) {
			return err
		}
	}
	return m.edit(e.key, e.change)
}

// unset takes it away.
func (m *maps) unset(e entry) error {
	if e.key.ofHost() {
		return nil // there are other attachments, or RemoveHost follows
	}
	e.slots, e.pointer = nil, ""
	return m.set(e)
}

// change is what slots are to become: those of the owner are replaced. The host's addresses
// come from many attachments, and none is taken away by one of them. A link has one owner.
func (e entry) change(have []slot) []slot {
	if e.key.kind() == kindLink && len(e.slots) > 0 {
		return e.slots
	}
	want := slices.Clone(e.slots)
	for i := 0; i < len(have); {
		switch at := slices.Index(want, have[i]); {
		case at >= 0:
			want = slices.Delete(want, at, at+1)
			i++
		case have[i].owner != e.owner || e.key.ofHost():
			i++
		default: // the last one takes its place: pages have no holes
			have[i] = have[len(have)-1]
			have = have[:len(have)-1]
		}
	}
	return append(have, want...)
}

// edit changes the slots of a key. A program that looks meanwhile finds those before or those
// after, page by page.
func (m *maps) edit(k key, fn func([]slot) []slot) error {
	before, all, err := m.pagesOf(k)
	if err != nil {
		return err
	}
	all = fn(all)
	pages := (len(all) + slots - 1) / slots
	if pages > maxPages {
		return fmt.Errorf("more than %d addresses of %s: %w", maxPages*slots, k.name(), bpf.ErrFull)
	}
	for i := pages - 1; i >= 0; i-- { // the first one last: it says how many there are
		v := newValue(pages, all[i*slots:min(len(all), (i+1)*slots)])
		if i < len(before) {
			copy(v[:pagesAt], before[i]) // the turn
			if bytes.Equal(v, before[i]) {
				continue
			}
		}
		if err := m.names.Update(k.page(i), v); err != nil {
			return err
		}
	}
	for i := pages; i < len(before); i++ {
		if err := m.names.Delete(k.page(i)); err != nil {
			return err
		}
	}
	return nil
}

// page is the key of a page.
func (k key) page(n int) key {
	if int(k[pageAt]) != n {
		k = slices.Clone(k)
		k[pageAt] = byte(n)
	}
	return k
}

// pagesOf reads all pages of a key.
func (m *maps) pagesOf(k key) (pages []value, all []slot, err error) {
	for i, most := 0, 1; i < most; i++ {
		v := make(value, valueSize)
		err := m.names.Lookup(k.page(i), v)
		if errors.Is(err, bpf.ErrNotFound) {
			return pages, all, nil
		}
		if err != nil {
			return nil, nil, err
		}
		if i == 0 {
			most = v.pages()
		}
		pages, all = append(pages, v), append(all, v.slots()...)
	}
	return pages, all, nil
}

// setPointer sets the name of an address, or removes the owner's.
func (m *maps) setPointer(e entry) error {
	if v := newPointer(e.owner, e.pointer); v != nil {
		return m.names.Update(e.key, v)
	}
	v := make(value, valueSize)
	err := m.names.Lookup(e.key, v)
	if errors.Is(err, bpf.ErrNotFound) || err == nil && v.owner() != e.owner {
		return nil
	}
	if err != nil {
		return err
	}
	return m.names.Delete(e.key)
}

// hasHost says that the host's names are there as a member wants them: the one that Put makes last.
func (m *maps) hasHost(member *Member) (has bool, err error) {
	has = true
	for _, a := range member.Gateways {
		kind := byte(kind6)
		if a.Is4() {
			kind = kind4
		}
		_, all, err := m.pagesOf(keyOf(member.Network, kind|ofHost, "gateway"))
		if err != nil {
			return false, err
		}
		has = has && slices.Contains(all, slotOf(hostOwner(member.Network), a))
	}
	return has, nil
}

// hasMember says that there may be something of a member: it came to its container.
func (m *maps) hasMember(member *Member) (bool, error) {
	_, all, err := m.pagesOf(numbered(kindContainer, hash(member.Container)))
	return slices.ContainsFunc(all, func(s slot) bool { return s.owner == hash(member.Owner) }), err
}
