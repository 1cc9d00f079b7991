package returnpath

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/transaction"
	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// Peer is another host of a network.
type Peer struct {
	// MAC address of its end of the tunnel.
	MAC [6]byte
	// Vias are addresses of that end, one of each family at most, to which this host has
	// neighbours.
	Vias []netip.Addr
}

func (p Peer) via(family int) netip.Addr {
	for _, a := range p.Vias {
		if netlink.Family(a) == family {
			return a
		}
	}
	return netip.Addr{}
}

// Network is one whose hosts lead clients from outside to containers of each other.
type Network struct {
	Device string // the VXLAN device, 1 to 15 bytes
	Nets   []netip.Prefix
	Peers  []Peer // none: the network has no return paths
}

// Paths are the return paths of a host, in the network namespace of the thread that opened it. They are for
// one process of the host at a time, and one goroutine of it.
type Paths struct {
	*sets
	conn    *netlink.Conn
	sockets nfnl.Pool
	none    bool // a call has seen to it that there is nothing
}

// Open opens a socket.
func Open() (*Paths, error) {
	c, err := netlink.Open()
	if err != nil {
		return nil, err
	}
	return &Paths{sets: newSets(), conn: c}, nil
}

// Close closes the sockets. The return paths stay.
func (p *Paths) Close() {
	p.conn.Close()
	_ = p.sockets.Close()
}

// kernel is what there is.
type kernel struct {
	generation uint32
	elements
	whole, there bool // our table of nftables
	rules        map[int][]rule
	paths        map[int]map[uint32]path
}

func (p *Paths) read(nl *nfnl.Conn) (k kernel, err error) {
	if k.generation, err = transaction.Generation(nl); err != nil {
		return k, err
	}
	if k.elements, k.whole, k.there, err = p.sets.read(nl); err != nil {
		return k, err
	}
	k.rules, k.paths = map[int][]rule{}, map[int]map[uint32]path{}
	for _, f := range families {
		if k.rules[f], err = rules(p.conn, f); err != nil {
			return k, err
		}
		if k.paths[f], err = paths(p.conn, f); err != nil {
			return k, err
		}
	}
	return k, nil
}

// Ensure brings the return paths of a network to what is asked; those of other networks stay. The
// mark of a host stays while it is one of the peers, as connections have it: what is there is read
// first, and no record is needed. A path is there before its mark is given, and goes after it. A call that
// is killed leaves what the next one does the rest of. The error wraps firewall.ErrUnsupported if
// the kernel lacks something.
func (p *Paths) Ensure(ctx context.Context, n Network) error {
	if p.none && len(n.Peers) == 0 {
		return nil
	}
	err := p.sockets.Do(ctx, func(nl *nfnl.Conn) error { return p.ensure(nl, n) })
	if err != nil {
		return fmt.Errorf("return paths of %s: %w", n.Device, firewall.AsUnsupported(err))
	}
	return nil
}

func (p *Paths) ensure(nl *nfnl.Conn, n Network) error {
	k, err := p.read(nl)
	if err != nil {
		return err
	}
	device, err := p.device(n)
	if err != nil {
		return err
	}
	want, err := k.assign(n, device)
	if err != nil {
		return err
	}
	others := k.others(want, device)
	for _, f := range families {
		if err := p.lead(f, k, n, want, others, device); err != nil {
			return err
		}
	}
	if now := elementsOf(want); !k.equal(now) || k.there && !k.whole {
		if err := p.write(nl, k.generation, k.elements, k.whole, k.there, now); err != nil {
			return err
		}
	}
	for _, f := range families {
		if err := p.tidy(f, k, want, others); err != nil {
			return err
		}
	}
	p.none = len(want)+len(others) == 0
	return nil
}

// device returns the index of a network's device; 0: it is gone, and has no peers.
func (p *Paths) device(n Network) (int, error) {
	d, err := p.conn.Device(n.Device)
	if errors.Is(err, netlink.ErrNotFound) && len(n.Peers) == 0 {
		return 0, nil // its routes have gone with it
	}
	if err != nil {
		return 0, err
	}
	if len(n.Peers) == 0 {
		return d.Index, nil
	}
	return d.Index, validate(n)
}

// others are the marks that no sender has, and whose paths lead by the devices of other networks: our
// table has been lost, and the next calls are about these networks.
func (k kernel) others(want map[sender]uint32, device int) map[uint32]bool {
	others, used := map[uint32]bool{}, marksOf(want)
	for _, f := range families {
		for mark, path := range k.paths[f] {
			if path.device != 0 && path.device != device && !used[mark] {
				others[mark] = true
			}
		}
	}
	return others
}

// validate has the reverse path of a client be looked up with its mark, by which it is the tunnel.
func validate(n Network) error {
	if !slices.ContainsFunc(n.Nets, func(s netip.Prefix) bool { return s.Addr().Is4() }) {
		return nil
	}
	err := host.SetSysctl("net/ipv4/conf/"+n.Device+"/src_valid_mark", "1")
	if errors.Is(err, host.ErrReadOnly) {
		return nil // it is needed with a strict rp_filter only
	}
	return err
}

// assign returns the marks of all senders: those that are there, without hosts that n has no more.
func (k kernel) assign(n Network, device int) (map[sender]uint32, error) {
	want, taken, others := map[sender]uint32{}, map[uint32]bool{}, map[uint32]bool{}
	for s, mark := range k.senders {
		if s.device != n.Device {
			want[s], others[mark] = mark, true
		}
		taken[mark] = true
	}
	byVia := map[netip.Addr]uint32{} // of paths by this device, should our table have been lost
	for _, f := range families {
		for mark, path := range k.paths[f] {
			if taken[mark] = true; path.device == device && path.via.IsValid() && !others[mark] {
				byVia[path.via] = mark
			}
		}
		for _, r := range k.rules[f] {
			taken[r.mark] = true
		}
	}
	next := uint32(markBase)
	for _, peer := range slices.SortedFunc(slices.Values(n.Peers), func(a, b Peer) int { return cmp.Compare(string(a.MAC[:]), string(b.MAC[:])) }) {
		s := sender{n.Device, peer.MAC}
		mark := k.senders[s]
		for _, via := range peer.Vias {
			mark = cmp.Or(mark, byVia[via])
		}
		for mark == 0 {
			if next++; next > markBase+maxPaths {
				return nil, fmt.Errorf("this host has return paths to %d hosts already", maxPaths)
			}
			if !taken[next] {
				mark = next
			}
		}
		want[s], taken[mark] = mark, true
	}
	return want, nil
}

// lead makes the routes and rules of a family that are missing.
func (p *Paths) lead(family int, k kernel, n Network, want map[sender]uint32, others map[uint32]bool, device int) error {
	throws := map[netip.Prefix]bool{}
	for _, s := range n.Nets {
		if netlink.Family(s.Addr()) == family {
			throws[s.Masked()] = true
		}
	}
	led := map[uint32]bool{} // marks that have a rule in the end
	for _, peer := range n.Peers {
		via, mark := peer.via(family), want[sender{n.Device, peer.MAC}]
		if !via.IsValid() {
			continue
		}
		if err := bring(p.conn, family, mark, k.paths[family][mark], path{via, device, throws}); err != nil {
			return err
		}
		led[mark] = true
	}
	if len(led) == 0 {
		return nil
	}
	have := k.rules[family]
	add := func(r rule) error {
		if slices.Contains(have, r) {
			return nil
		}
		return addRule(p.conn, family, r)
	}
	if err := add(end()); err != nil {
		return err
	}
	if !slices.Contains(have, skip()) { // it has to be the first: rules of one preference stand in the order in which they came
		used := marksOf(want)
		for _, r := range have {
			if !r.isPath() {
				continue
			}
			if err := delRule(p.conn, family, r); err != nil {
				return err
			}
			if used[r.mark] || others[r.mark] {
				led[r.mark] = true
			}
		}
		have = nil
	}
	if err := add(skip()); err != nil {
		return err
	}
	for _, mark := range slices.Sorted(maps.Keys(led)) {
		if err := add(to(mark)); err != nil {
			return err
		}
	}
	return nil
}

func marksOf(all map[sender]uint32) map[uint32]bool {
	marks := map[uint32]bool{}
	for _, mark := range all {
		marks[mark] = true
	}
	return marks
}

// tidy removes rules and routes of a family that no mark needs.
func (p *Paths) tidy(family int, k kernel, want map[sender]uint32, others map[uint32]bool) error {
	used := marksOf(want)
	maps.Copy(used, others)
	for _, r := range k.rules[family] {
		if r.isPath() && !used[r.mark] || len(used) == 0 {
			if err := delRule(p.conn, family, r); err != nil {
				return err
			}
		}
	}
	for mark, have := range k.paths[family] {
		if !used[mark] {
			if err := bring(p.conn, family, mark, have, path{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Remove takes the return paths of a device away, which need not be there.
func (p *Paths) Remove(ctx context.Context, device string) error {
	return p.Ensure(ctx, Network{Device: device})
}
