package nodefile

import (
	"hash/fnv"
	"net/netip"
	"strconv"

	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/jsonw"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
)

// Seen is what an ADD that looked at all hosts of a configuration notes for those that come
// after it with the same list: of a thousand hosts each would read, check and compare what the
// kernel has for all. It counts as long as nothing that tells has changed since. What does not
// tell, as one route of many that an operator deletes, CHECK and STATUS find.
type Seen struct {
	List        string         // the list, as it is written: see DigestOf
	Self        netip.Addr     // this host
	Blocks      []netip.Prefix // of this host
	Config      string         // fingerprint of the configuration without the other hosts
	Fingerprint string         // of all of it
	Device      int            // index of the tunnel's device
	Peer        netip.Addr     // one of the other hosts
	PeerBlocks  []netip.Prefix // of that one: routes lead there by the device
	Path        int            // MTU of the way to Peer; 0: the MTU is not found out
	MTU         int            // that followed; 0: it was given
}

// DigestOf tells one list from another by how it is written.
func DigestOf(list ...[]byte) string {
	h := fnv.New64a()
	for _, part := range list {
		_, _ = h.Write(strconv.AppendInt(nil, int64(len(part)), 10))
		_, _ = h.Write([]byte{':'})
		_, _ = h.Write(part)
	}
	return strconv.FormatUint(h.Sum64(), 16)
}

// Encode writes it for ReadSeen.
func (s *Seen) Encode() []byte {
	var o jsonw.Object
	o.String("list", s.List)
	o.String("self", s.Self.String())
	o.Strings("blocks", texts(s.Blocks))
	o.String("config", s.Config)
	o.String("fingerprint", s.Fingerprint)
	o.Int("device", s.Device)
	o.String("peer", s.Peer.String())
	o.Strings("peerBlocks", texts(s.PeerBlocks))
	o.OptionalInt("path", s.Path)
	o.OptionalInt("mtu", s.MTU)
	return o.Bytes()
}

func texts(all []netip.Prefix) (out []string) {
	for _, p := range all {
		out = append(out, p.String())
	}
	return out
}

// ReadSeen reads what was noted of a network, if it is of this list, and this host is still the
// one that it was; else nil.
func ReadSeen(stateDir, network, list string) *Seen {
	data, err := state.New(stateDir).LoadSeen(network)
	if err != nil {
		return nil
	}
	o, err := jsonr.Parse(data)
	if err != nil {
		return nil
	}
	s := &Seen{Self: o.At("self").Addr(), Blocks: prefixes(o.At("blocks")), Peer: o.At("peer").Addr(), PeerBlocks: prefixes(o.At("peerBlocks"))}
	o.String("list", &s.List)
	o.String("config", &s.Config)
	o.String("fingerprint", &s.Fingerprint)
	o.At("device").Int(&s.Device)
	o.At("path").Int(&s.Path)
	o.At("mtu").Int(&s.MTU)
	if o.Err() != nil || s.List != list || !IsLocal(s.Self) || len(s.Blocks) == 0 || len(s.PeerBlocks) == 0 {
		return nil
	}
	return s
}

func prefixes(v jsonr.Value) (all []netip.Prefix) {
	for _, item := range v.Items() {
		var s string
		item.String(&s)
		p, err := netip.ParsePrefix(s)
		if err != nil {
			item.Refuse("a prefix")
		}
		all = append(all, p)
	}
	return all
}

// Node is this host as the list has it.
func (s *Seen) Node() model.Node { return model.Node{Address: s.Self, Subnets: s.Blocks} }

// See returns what is to be noted of a configuration; nil if the other hosts count for more
// than the tunnel: where they have blocks outside of the network's subnets, each container has
// routes to these.
func See(list string, t model.TunnelConfig) *Seen {
	if list == "" || t.Agent || t.Encrypted() {
		return nil
	}
	s := &Seen{List: list, Self: t.Self, Blocks: t.Blocks()}
	for _, n := range t.Nodes {
		if !within(n.Subnets, t.Subnets) {
			return nil
		}
		if n.Address != t.Self && !s.Peer.IsValid() {
			s.Peer, s.PeerBlocks = n.Address, n.Subnets
		}
	}
	if !s.Peer.IsValid() {
		return nil
	}
	return s
}

// within says that each of all is in one of these.
func within(all, these []netip.Prefix) bool {
	for _, b := range all {
		in := false
		for _, s := range these {
			in = in || s.Bits() <= b.Bits() && s.Overlaps(b)
		}
		if !in {
			return false
		}
	}
	return true
}
