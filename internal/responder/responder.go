package responder

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/libnet-cni/libnet/internal/bpf"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/sentinel"
	"github.com/libnet-cni/libnet/internal/sorting"
)

// Unsupported says whether an error is of a kernel that cannot answer for names.
func Unsupported(err error) bool { return errors.Is(err, bpf.ErrUnsupported) }

// ErrDifferent says that something is not as Put made it.
var ErrDifferent error = &sentinel.Error{Text: "names in the kernel differ"}

// Member is an attachment with its names.
type Member struct {
	// Owner is the attachment, of all the host's.
	Owner string
	// Network and Container it is of, and the network's domain; empty: none.
	Network, Container, Domain string
	// Names of the container on the network; the best one first.
	Names []string
	// Addresses on the network, and those of the host there.
	Addresses, Gateways []netip.Addr
	// Link is the index of the host's end of its veth; 0: not known.
	Link int
}

// filters are the programs of links.
type filters interface {
	// Filter has a program look at what comes in by a link.
	Filter(index, program int, f netlink.Filter) error
	// Filtered says whether a program of that name does.
	Filtered(index int, f netlink.Filter) (bool, error)
}

// Responder is that of a state directory in a network namespace.
type Responder struct {
	links    filters
	stateDir string
	fixed    string // place of the pins; empty: of the calling thread's namespace
}

// New returns the Responder of a state directory. It touches nothing.
func New(stateDir string, links filters) *Responder {
	return &Responder{links: links, stateDir: stateDir}
}

// filter is the one that has the program.
func filter() netlink.Filter { return netlink.Filter{Name: "libnet-names", Preference: 53} }

// dir is where the pins are.
func (r *Responder) dir() (string, error) {
	if r.fixed != "" {
		return r.fixed, nil
	}
	path, err := filepath.Abs(r.stateDir)
	if err != nil {
		return "", err
	}
	return bpf.NetnsDir(fmt.Sprintf("%016x", hash(path)), version)
}

// forget has fn take away what is in the maps. Without a map it removes the pins: a call that was
// killed, or that failed, left them.
func (r *Responder) forget(ctx context.Context, fn func(*maps) error) error {
	if bpf.Supported() != nil {
		return nil // no call on this machine made one
	}
	dir, err := r.dir()
	if err != nil {
		return err
	}
	m, err := open(ctx, dir, false)
	switch {
	case errors.Is(err, errNone) && errors.Is(err, os.ErrNotExist):
		return bpf.RemoveRoot(filepath.Dir(dir))
	case errors.Is(err, errNone):
		return nil
	case err != nil:
		return err
	}
	defer m.close()
	if m.names == nil {
		return removeDir(dir)
	}
	return fn(m)
}

// with calls fn with the maps. Without create, and without a map, it does not.
func (r *Responder) with(ctx context.Context, create bool, fn func(*maps) error) error {
	dir, err := r.dir()
	if err != nil {
		return err
	}
	m, err := open(ctx, dir, create)
	if errors.Is(err, errNone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer m.close()
	if m.names == nil { // see forget
		return nil
	}
	return fn(m)
}

// Available says why this kernel cannot answer; nil: it can. What it makes to find out it
// removes, unless it is in use.
func (r *Responder) Available(ctx context.Context) error {
	err := r.with(ctx, true, (*maps).removeIfEmpty)
	if err != nil {
		err = errors.Join(err, r.Tidy(ctx))
	}
	return err
}

// Put has the kernel answer for a member, and answer it. Done again it changes what differs.
// Names that it had before go; nil: it had none. If it fails, what it made is for Remove. It is
// whole unless others' names may be missing, as all are after the map was lost: see MarkWhole.
func (r *Responder) Put(ctx context.Context, member *Member, before *Member) (whole bool, err error) {
	err = r.with(ctx, true, func(m *maps) (err error) {
		if whole, err = isWhole(m.dir); err != nil {
			return err
		}
		// First: a name that is there says that the program of this map answers.
		if err := r.links.Filter(member.Link, m.program, filter()); err != nil {
			return err
		}
		keep := map[string]bool{}
		host, err := m.hasHost(member)
		if err != nil {
			return err
		}
		for _, e := range member.entries() { // the container first: it tells Remove that there may be more
			if keep[string(e.key)] = true; host && e.key.ofHost() {
				continue
			}
			if err := m.set(e); err != nil {
				return err
			}
		}
		if before == nil {
			before = &Member{}
		}
		for _, e := range before.entries() {
			if keep[string(e.key)] {
				continue
			}
			if err := m.unset(e); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, bpf.ErrFull) {
		err = fmt.Errorf("there is room for %d keys: %w", MostKeys, err)
	}
	return whole, wrap(member, err)
}

// Whole says that no names of any attachment are missing because the map was lost.
func (r *Responder) Whole() (bool, error) {
	dir, err := r.dir()
	if err != nil {
		return false, err
	}
	return isWhole(dir)
}

// MarkWhole says that all attachments are put, since the map was made. Without a map it does
// nothing.
func (r *Responder) MarkWhole(ctx context.Context) error {
	return r.with(ctx, false, func(m *maps) error {
		if err := bpf.Pin(m.names.FD(), filepath.Join(m.dir, wholePin)); !errors.Is(err, bpf.ErrExists) {
			return err
		}
		return nil
	})
}

func wrap(member *Member, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("names of %s in the kernel: %w", member.Owner, err)
}

// Remove has the kernel forget a member; missing is success. What a member that is not complete
// was called, and where it was, is found by its owner.
func (r *Responder) Remove(ctx context.Context, member *Member, complete bool) error {
	return wrap(member, r.forget(ctx, func(m *maps) error {
		if !complete || member.Link == 0 {
			has, err := m.hasMember(member)
			if err == nil && has {
				err = m.removeOwners(func(o uint64) bool { return o == hash(member.Owner) })
			}
			return err
		}
		var errs []error
		for _, e := range slices.Backward(member.entries()) {
			errs = append(errs, m.unset(e))
		}
		return errors.Join(errs...)
	}))
}

// RemoveHost has the kernel forget the host's names on a member's network, if empty says, while
// no other call changes names, that the network has no attachment.
func (r *Responder) RemoveHost(ctx context.Context, member *Member, empty func() (bool, error)) error {
	return r.forget(ctx, func(m *maps) error {
		is, err := empty()
		if err != nil || !is {
			return err
		}
		var errs []error
		for _, k := range member.hostKeys() {
			errs = append(errs, m.edit(k, func([]slot) []slot { return nil }))
		}
		return errors.Join(errs...)
	})
}

// Verify changes nothing and says what differs from what Put made; such an error is
// ErrDifferent.
func (r *Responder) Verify(ctx context.Context, member *Member) error {
	looked := false
	err := r.with(ctx, false, func(m *maps) error {
		looked = true
		return m.verify(member)
	})
	if err == nil && !looked {
		err = fmt.Errorf("%w: all names in the kernel are gone", ErrDifferent)
	}
	if err != nil {
		return wrap(member, err)
	}
	there, err := r.links.Filtered(member.Link, filter())
	if err == nil && !there {
		err = fmt.Errorf("%w: the filter %s on ingress of link %d is missing", ErrDifferent, filter().Name, member.Link)
	}
	return wrap(member, err)
}

// Tidy removes map and program if nothing is in the map.
func (r *Responder) Tidy(ctx context.Context) error { return r.forget(ctx, (*maps).removeIfEmpty) }

// Known are the owners and networks that there may be names of.
type Known struct {
	Owners   []string // attachments
	Networks []string // with attachments
	Unread   []string // networks of which not all attachments are known
}

// Strays returns in words what no owner explains, one name of each attachment, and with remove removes it; and map and program,
// if nothing is in the map. An ADD has its record before its names, and a DEL removes it after
// them, so no name of theirs is without one while they wait for us.
func (r *Responder) Strays(ctx context.Context, remove bool, known func() (Known, error)) (all []string, err error) {
	look := func(fn func(*maps) error) error { return r.with(ctx, false, fn) }
	if remove {
		look = func(fn func(*maps) error) error { return r.forget(ctx, fn) }
	}
	err = look(func(m *maps) error {
		is, err := m.strays(known)
		if err != nil {
			return err
		}
		gone := map[uint64]string{} // owners, and the shortest of their names
		err = m.each(func(k key, _ value, s slot) {
			if !is(k, s) {
				return
			}
			if words, had := gone[s.owner], inWords(k, s); words == "" || had != "" && len(had) < len(words) {
				gone[s.owner] = had
			}
		})
		for _, words := range gone {
			all = append(all, words)
		}
		sorting.Ordered(all)
		if err != nil || !remove {
			return err
		}
		if len(gone) > 0 {
			err = m.removeOwners(func(o uint64) bool { _, is := gone[o]; return is })
		}
		return errors.Join(err, m.removeIfEmpty())
	})
	return all, err
}

// strays says what is one.
func (m *maps) strays(known func() (Known, error)) (is func(key, slot) bool, err error) {
	owners := map[uint64]bool{}
	k, err := known()
	for _, o := range k.Owners {
		owners[hash(o)] = true
	}
	for _, n := range k.Networks {
		owners[hostOwner(n)] = true
	}
	for _, n := range k.Unread {
		owners[hash(n)] = true
	}
	return func(k key, s slot) bool {
		network := k[:8]
		if k.kind() == kindLink || k.kind() == kindContainer {
			network = s.data[:8]
		}
		return !owners[s.owner] && !owners[binary.LittleEndian.Uint64(network)]
	}, err
}
