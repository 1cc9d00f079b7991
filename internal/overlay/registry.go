package overlay

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/sentinel"
)

// Errors of registries, for errors.Is.
var (
	// ErrTaken: another host has the block, the VNI, the name or the address.
	ErrTaken error = &sentinel.Error{Text: "taken by another host"}
	// ErrFull: the network has no free block left.
	ErrFull error = &sentinel.Error{Text: "no free block left"}
	// ErrDiffers: the network is another one here than what its hosts agreed on.
	ErrDiffers error = &sentinel.Error{Text: "differs from what the network's hosts agreed on"}
)

// BlockSize is how long the prefix of a host's block is, by address family.
type BlockSize struct{ IPv4, IPv6 int }

// bits returns the length for the family of a.
func (s BlockSize) bits(a netip.Addr) int {
	if a.Is6() {
		return s.IPv6
	}
	return s.IPv4
}

// Terms are what all hosts of a network have to agree on.
type Terms struct {
	Subnets []netip.Prefix
	Size    BlockSize
	VNI     int // 0, of what a host asks for: any
	Port    int
	IPv6    bool // the hosts' own addresses are
	// Encryption of what goes from one host to another.
	Encryption Encryption
	By         string
}

// Differs says in what a host's own terms are others than these: ErrDiffers.
func (t Terms) Differs(own Terms) error {
	for _, d := range []struct {
		key         string
		agreed, own any
	}{
		{"subnet", fmt.Sprint(t.Subnets), fmt.Sprint(own.Subnets)},
		{"blockSize", t.Size, own.Size},
		{"vni", t.VNI, cmp.Or(own.VNI, t.VNI)},
		{"port", t.Port, own.Port},
		{"IPv6 addresses of the hosts", t.IPv6, own.IPv6},
		{"encryption", cmp.Or(t.Encryption, "none"), cmp.Or(own.Encryption, "none")},
	} {
		if d.agreed != d.own {
			return fmt.Errorf("%w: %s: %v here, %v by %s", ErrDiffers, d.key, d.own, d.agreed, t.By)
		}
	}
	return nil
}

// Cut says that b is one of the blocks that the subnets are cut into.
func (t Terms) Cut(b netip.Prefix) bool {
	return b == b.Masked() && b.Bits() == t.Size.bits(b.Addr()) && slices.ContainsFunc(t.Subnets, func(s netip.Prefix) bool {
		return s.Contains(b.Addr()) && s.Bits() <= b.Bits()
	})
}

// Member is a host as a registry knows it.
type Member struct {
	Name    string
	Address netip.Addr
	// Live: it has lately been heard of. Holds: its blocks are its own still,
	// heard of or not.
	Live, Holds bool
	// Revision is when it last said its address.
	Revision int64
	Also     []netip.Addr // other addresses of the host
}

// ServiceHolder has the blocks out of which services get their addresses. It can be the name of
// no host.
const ServiceHolder = "(services)"

// Holding is a block that a host has, or ServiceHolder.
type Holding struct {
	Node     string
	Revision int64 // of the registry's entry
	Epoch    Epoch // of the claim
}

// Shared is a network as its hosts share it.
type Shared struct {
	Terms    Terms
	Agreed   bool  // there are Terms
	Revision int64 // of Terms
	Blocks   map[netip.Prefix]Holding
	// Epoch of the keys and Keys of the hosts, by name, where the network is encrypted.
	Epoch KeyEpoch
	Keys  map[string]HostKeys
}

// View is all that a registry knows at a time. It is not to be changed.
type View struct {
	// At is the registry's own revision, and which history that is of.
	At Moment
	// Settled: the registry has all that there is to know, as far as can be told,
	// so that a block which is free there is free. See etcd.Registry.Session.
	Settled bool
	// Assigned: the registry says which blocks a host has, and none is to be claimed.
	Assigned bool
	// Unavailable: the cluster keeps containers away from this host until it says that its network
	// is up.
	Unavailable bool
	// Until is when this host's right to its blocks ends, in seconds since boot,
	// if it is not heard of before; 0: never.
	Until    int64
	Members  map[string]Member
	Networks map[string]Shared
	// Evicted are hosts that are to have no part in any network, and the host where that was
	// asked for.
	Evicted map[string]string
	// Problems are entries that cannot be read.
	Problems []string
}

// Host is a Node with a name.
type Host struct {
	Name string
	Node
}

// Own returns the blocks of a host in a network, in order.
func (v View) Own(network, node string) []netip.Prefix {
	var all []netip.Prefix
	for b, h := range v.Networks[network].Blocks {
		if h.Node == node {
			all = append(all, b)
		}
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return all
}

// Hosts returns the hosts that have blocks in a network and are not evicted, in the order of their
// names, and what is wrong with others, which are left out. Of two that have one
// address the live one is in, or the one that announced it last if both or none of
// them are live: it has replaced the other one.
func (v View) Hosts(network string) (hosts []Host, problems []string) {
	s := v.Networks[network]
	blocks := map[string][]netip.Prefix{}
	for b, h := range s.Blocks {
		if _, is := v.Evicted[h.Node]; is || h.Node == ServiceHolder {
			continue
		}
		if !s.Terms.Cut(b) { // one that overlaps others would be in the way of all
			problems = append(problems, fmt.Sprintf("%s of node %s is no block of the network", b, h.Node))
			continue
		}
		blocks[h.Node] = append(blocks[h.Node], b)
	}
	slices.Sort(problems)
	byAddress := map[netip.Addr]Member{}
	for _, name := range slices.Sorted(maps.Keys(blocks)) {
		m, known := v.Members[name]
		switch {
		case !known || !m.Address.IsGlobalUnicast() || m.Address.Is4In6() || m.Address.Zone() != "":
			problems = append(problems, fmt.Sprintf("node %s has blocks and no address of a host", name))
			continue
		case m.Address.Is6() != s.Terms.IPv6:
			problems = append(problems, fmt.Sprintf("node %s has the address %s, of another family than the other hosts'", name, m.Address))
			continue
		case slices.ContainsFunc(s.Terms.Subnets, func(p netip.Prefix) bool { return p.Contains(m.Address) }):
			problems = append(problems, fmt.Sprintf("node %s has the address %s, which is inside of the network itself", name, m.Address))
			continue
		}
		if other, taken := byAddress[m.Address]; taken {
			if m.replaces(other) {
				m, other = other, m
			}
			byAddress[m.Address] = other
			problems = append(problems, fmt.Sprintf("node %s has the address %s, which is %s's now", m.Name, m.Address, other.Name))
			continue
		}
		byAddress[m.Address] = m
	}
	for _, m := range byAddress {
		own := blocks[m.Name]
		slices.SortFunc(own, netip.Prefix.Compare)
		hosts = append(hosts, Host{m.Name, Node{Address: m.Address, Blocks: own}})
	}
	slices.SortFunc(hosts, func(a, b Host) int { return cmp.Compare(a.Name, b.Name) })
	return hosts, problems
}

func (m Member) replaces(other Member) bool {
	if m.Live != other.Live {
		return m.Live
	}
	return m.Revision > other.Revision
}

// Gone returns the hosts that have been silent for so long that any host may
// take their blocks.
func (v View) Gone() []string {
	gone := map[string]bool{}
	for name, m := range v.Members {
		if !m.Holds {
			gone[name] = true
		}
	}
	for _, s := range v.Networks {
		for _, h := range s.Blocks {
			if !v.Members[h.Node].Holds && h.Node != ServiceHolder {
				gone[h.Node] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(gone))
}

// Choose returns a free block of a subnet for a host. Each begins to look at
// another place, so that hosts which start at the same time seldom want the
// same one, and one that comes back often gets what it had.
func (s Shared) Choose(subnet netip.Prefix, node string) (netip.Prefix, error) {
	bits := s.Terms.Size.bits(subnet.Addr())
	cut := bits - subnet.Bits()
	if cut < 0 {
		return netip.Prefix{}, fmt.Errorf("%w: subnet %s is smaller than a block of /%d", ErrFull, subnet, bits)
	}
	count := 1 << min(cut, 30)
	h := fnv.New32a()
	_, _ = h.Write([]byte(node))
	for i := range count {
		b, ok := Block(subnet, bits, (int(h.Sum32())+i)%count)
		if _, taken := s.Blocks[b]; ok && !taken {
			return b, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("%w: %d blocks of /%d in %s", ErrFull, count, bits, subnet)
}
