package ruleset

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/sorting"
)

// publishedPort is a published port, or a range, as elements of one family tell.
type publishedPort struct {
	sets        *FamilySets
	protocol    firewall.Protocol
	host        netip.Addr // the zero Addr: any
	first, last uint16     // of the host
	to          uint16     // of the container: where first goes
	target      netip.Addr
	sources     []netip.Prefix // nil: all clients
	direct      bool           // reached by the container's address; first says nothing
}

// containerPort is where ports go. There may be thousands, so they are found by
// key.
type containerPort struct {
	protocol firewall.Protocol
	target   netip.Addr // the zero Addr: of either family
	to, last uint16
}

func (p publishedPort) container() containerPort {
	return containerPort{protocol: p.protocol, target: p.target, to: p.to, last: p.end()}
}

func (p publishedPort) end() uint16 { return p.to + p.last - p.first }

// readPort reads an element of a map of ports. It returns false for none that
// portElems makes, and for the second of the two that leave 127.0.0.0/8 out.
func readPort(f *FamilySets, e Elem, v [][]byte) (publishedPort, bool) {
	c, ok := e.Claim()
	data, whole := e.Set.Data.Split(e.Data)
	if !ok || !whole {
		return publishedPort{}, false
	}
	p := publishedPort{sets: f, protocol: c.Protocol, host: c.Host(), first: c.Lo, last: c.Hi, to: c.Lo}
	p.target, _ = netip.AddrFromSlice(data[0])
	if e.Set != &f.Span {
		p.to = binary.BigEndian.Uint16(data[1])
	}
	if e.Set != &f.From && e.Set != &f.Span {
		return p, true
	}
	end, _ := e.Set.Key.Split(e.End)
	split := bytes.Equal(end[1], notLocalhost4[0].last)
	p.sources = clients(v[0], end[0], e.Set == &f.Span || split)
	return p, !bytes.Equal(v[1], notLocalhost4[1].first) || c.Host().IsValid()
}

// readOpen reads an element of a set of ports that are reached directly.
func readOpen(f *FamilySets, e Elem, v [][]byte) (publishedPort, bool) {
	p := publishedPort{sets: f, direct: true}
	if e.Set == &f.Open {
		p.target, _ = netip.AddrFromSlice(v[0])
		p.protocol, p.to = firewall.Protocol(v[1][0]), binary.BigEndian.Uint16(v[2])
		p.first, p.last = p.to, p.to
		return p, true
	}
	end, ok := e.Set.Key.Split(e.End)
	if !ok {
		return p, false
	}
	p.target, _ = netip.AddrFromSlice(v[1])
	p.protocol, p.to, p.last = firewall.Protocol(v[2][0]), binary.BigEndian.Uint16(v[3]), binary.BigEndian.Uint16(end[3])
	p.first = p.to
	p.sources = clients(v[0], end[0], p.last > p.first)
	return p, true
}

// clients returns the prefix from first to last; nil if it is all clients and
// that need not be said for the element to be where it is.
func clients(first, last []byte, plain bool) []netip.Prefix {
	a, _ := netip.AddrFromSlice(first)
	n := 0
	for i := range first {
		same := bits.LeadingZeros8(first[i] ^ last[i])
		if n += same; same < 8 {
			break
		}
	}
	if n == 0 && plain {
		return nil
	}
	return []netip.Prefix{netip.PrefixFrom(a, n)}
}

// portMaps puts together what one PortMap was before.
func (t *trace) portMaps() []firewall.PortMap {
	ports := withSources(t.ports)
	opens := withSources(t.opens)
	ports = joinRanges(ports, opens)
	known := map[containerPort]bool{}
	for _, p := range ports {
		known[p.container()] = true
	}
	for _, o := range opens {
		if !known[o.container()] {
			ports = append(ports, o)
		}
	}
	ports = joinFamilies(ports)
	sorting.Stable(ports, publishedPort.compare)
	var all []firewall.PortMap
	for _, p := range ports {
		m := firewall.PortMap{Protocol: p.protocol, HostIP: p.host, HostPort: p.first, ContainerPort: p.to, Sources: p.sources}
		if p.last > p.first {
			m.HostPortEnd = p.last
		}
		switch {
		case p.host.IsValid() || p.sets == nil:
		case p.sets == IPv6():
			m.HostIP = netip.IPv6Unspecified()
		default:
			m.HostIP = netip.IPv4Unspecified()
		}
		all = append(all, m)
	}
	return all
}

func (p publishedPort) compare(o publishedPort) int {
	return cmp.Or(cmp.Compare(p.first, o.first), cmp.Compare(p.protocol, o.protocol), p.host.Compare(o.host),
		p.target.Compare(o.target), cmp.Compare(p.to, o.to))
}

// withSources makes one of all that differ in their clients only.
func withSources(all []publishedPort) []publishedPort {
	all = slices.Clone(all)
	sorting.Stable(all, func(a, b publishedPort) int {
		return cmp.Or(a.compare(b), cmp.Compare(a.last, b.last), slices.CompareFunc(a.sources, b.sources, comparePrefix))
	})
	var out []publishedPort
	for _, p := range all {
		if n := len(out) - 1; n >= 0 && p.sources != nil && out[n].sources != nil && p.compare(out[n]) == 0 && p.last == out[n].last {
			out[n].sources = append(out[n].sources, p.sources...)
			continue
		}
		out = append(out, p)
	}
	return out
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// joinRanges makes ranges of ports that do not keep their numbers, each of
// which is an element of its own. The open ports tell whether they were one.
func joinRanges(ports, opens []publishedPort) []publishedPort {
	together := func(a, b publishedPort) bool {
		return !slices.ContainsFunc(opens, func(o publishedPort) bool { return o.target == a.target }) ||
			slices.ContainsFunc(opens, func(o publishedPort) bool {
				return o.target == a.target && o.protocol == a.protocol && o.to <= a.to && b.end() <= o.end()
			})
	}
	type next struct { // what goes on a range
		protocol     firewall.Protocol
		host, target netip.Addr
		first, to    uint16
	}
	key := func(p publishedPort, first, to int) next {
		return next{p.protocol, p.host, p.target, uint16(first), uint16(to)}
	}
	var out []publishedPort
	open := map[next]int{}
	for _, p := range ports {
		i, ok := open[key(p, int(p.first), int(p.to))]
		if ok && p.first != p.to && sameClients(out[i], p) && together(out[i], p) {
			out[i].last = p.last
		} else {
			i = len(out)
			out = append(out, p)
		}
		if p.last < 65535 && p.end() < 65535 {
			open[key(p, int(p.last)+1, int(p.end())+1)] = i
		}
	}
	return out
}

func sameClients(a, b publishedPort) bool {
	return (a.sources == nil) == (b.sources == nil) && slices.Equal(a.sources, b.sources)
}

// joinFamilies makes one of what is the same for any address of both families.
func joinFamilies(ports []publishedPort) []publishedPort {
	var out []publishedPort
	alone := map[containerPort][]int{} // of one family, for any address
	for _, p := range ports {
		key := p.container()
		key.target = netip.Addr{}
		at := slices.IndexFunc(alone[key], func(i int) bool {
			o := out[i]
			return o.sets != p.sets && (o.first == p.first || o.direct != p.direct) && (o.sources == nil) == (p.sources == nil)
		})
		if p.host.IsValid() || at < 0 {
			if !p.host.IsValid() {
				alone[key] = append(alone[key], len(out))
			}
			out = append(out, p)
			continue
		}
		o := &out[alone[key][at]]
		alone[key] = slices.Delete(alone[key], at, at+1)
		if o.direct {
			o.first, o.last = p.first, p.last
		}
		o.sets, o.sources = nil, append(o.sources, p.sources...)
	}
	return out
}
