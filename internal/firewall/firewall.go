package firewall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Errors of this package, for errors.Is.
var (
	// ErrUnsupported says that the kernel has no nf_tables, or lacks a part of it that the rules need.
	ErrUnsupported = errors.New("not supported by this kernel")
	// ErrInvalid says that a Network or an Endpoint cannot be put into rules as it stands.
	ErrInvalid = errors.New("invalid")
	// ErrMissing is what Verify reports for a table, chain, rule or element that is not there.
	ErrMissing = errors.New("missing")
	// ErrConflict is what Verify reports for an element that another owner holds.
	ErrConflict = errors.New("held by another owner")
)

// Network says which rules hold for a whole network. A Network with neither
// Internal nor NoICC has no rules.
type Network struct {
	// Name is the comment of the network's elements, in the form of Key.
	Name string
	// Bridge is the host's bridge. Elements are keyed by it: of two networks
	// on one bridge the last one applied holds them.
	Bridge string
	// Internal drops what is forwarded between Bridge and any other interface, both ways.
	Internal bool
	// NoICC drops what is forwarded in and out by Bridge. Frames that are
	// bridged, not routed, are out of its reach: see isolated bridge ports.
	NoICC bool
}

// Endpoint says which rules hold for one attachment. An Endpoint with neither
// Masquerade nor MAC has no rules.
type Endpoint struct {
	// Owner is the comment of the endpoint's elements, in the form of Key.
	Owner string
	// Bridge is the host's bridge; Port is the host's end of the veth.
	Bridge, Port string
	// Addrs are the container's addresses, of both families.
	Addrs []netip.Addr
	// Masquerade gives packets from Addrs that leave by another interface than
	// Bridge the address of that interface, unless they go to a multicast address.
	Masquerade bool
	// MAC, if not nil, drops frames entering by Port with another source address.
	MAC net.HardwareAddr
}

// Firewall applies rules. Every call works in the network namespace of the
// calling thread. It holds no state but open sockets (see Close), and may be
// used by many goroutines.
type Firewall struct {
	mu   sync.Mutex // guards idle
	idle []*conn
}

// New opens nothing and costs nothing.
func New() *Firewall { return &Firewall{} }

// Apply puts the rules of n and e in place, in one transaction. Twice is once.
// An element that another owner holds for the same address, port or bridge is
// taken over: the lease says whose it is. A Network or Endpoint that has no
// rules is passed over, even if it is the zero value. If our tables, sets,
// chains or rules are not there, they are written in the same transaction.
// It is ErrInvalid for a name or address no rule can hold, before anything
// changes, and ErrUnsupported if the kernel lacks something; it needs Linux 5.2.
func (f *Firewall) Apply(ctx context.Context, n Network, e Endpoint) error {
	elems, err := plan(n, e)
	if err == nil && len(elems) > 0 {
		err = f.apply(ctx, elems)
	}
	if err != nil {
		return fmt.Errorf("apply rules of %s: %w", cmp.Or(e.Owner, n.Name), err)
	}
	return nil
}

// apply looks before it sends. What is in place is not sent again, and what is
// free needs no deletion: a transaction without one is 50 times cheaper (see
// commit), and so is looking than a transaction that fails.
func (f *Firewall) apply(ctx context.Context, elems []elem) error {
	whole := false
	send := func(c *conn) error {
		var b batch
		for _, t := range tablesOf(elems) {
			intact, err := c.intact(t)
			if err != nil {
				return err
			}
			if whole || !intact {
				b.ensure(t)
			}
		}
		for _, e := range elems {
			owner, found, err := c.holder(e)
			switch {
			case err != nil:
				return err
			case !found:
				b.put(e)
			case owner != e.owner:
				b.takeOver(e)
			}
		}
		return c.commit(0, &b)
	}
	err := f.do(ctx, send)
	if errors.Is(err, unix.ENOENT) { // a set is missing, or the tables went since we looked
		whole = true
		err = f.do(ctx, send)
	}
	return supported(err)
}

// intact returns whether t has its chains, and these their number of rules.
// A flushed chain is a firewall that is off without a word.
func (c *conn) intact(t table) (bool, error) {
	for _, ch := range t.chains {
		n, err := c.ruleCount(t.family, ch.name)
		if err != nil || n != len(ch.rules) {
			return false, err
		}
	}
	return true, nil
}

// List returns the owners of all endpoint elements, sorted, each once, in the
// form of Key. Without our tables there are none. Its cost grows with what exists.
func (f *Firewall) List(ctx context.Context) ([]string, error) {
	var owners []string
	err := f.do(ctx, func(c *conn) error {
		owners = nil
		if _, err := c.generation(); err != nil {
			return err
		}
		for _, s := range []*set{&masq4, &home4, &masq6, &home6, &guarded, &macs} {
			all, err := c.elems(s)
			if err != nil {
				return err
			}
			for _, e := range all {
				owners = append(owners, e.owner)
			}
		}
		return nil
	})
	if err := absent(err); err != nil {
		return nil, fmt.Errorf("list owners of rules: %w", err)
	}
	slices.Sort(owners)
	return slices.Compact(owners), nil
}

// Available returns ErrUnsupported, naming nf_tables, when the kernel has none.
// It changes nothing.
func (f *Firewall) Available() error {
	return f.do(context.Background(), func(c *conn) error {
		_, err := c.generation()
		return supported(err)
	})
}

// tablesOf returns the tables that hold elems.
func tablesOf(elems []elem) []table {
	var all []table
	for _, t := range []table{inetTable(), bridgeTable()} {
		if slices.ContainsFunc(elems, func(e elem) bool { return e.set.family == t.family }) {
			all = append(all, t)
		}
	}
	return all
}

// supported translates what a kernel answers that lacks nf_tables, a family,
// a chain type or an expression.
func supported(err error) error {
	for _, errno := range []unix.Errno{unix.ENOENT, unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT} {
		if errors.Is(err, errno) {
			return fmt.Errorf("nf_tables: %w: %w", ErrUnsupported, err)
		}
	}
	return err
}
