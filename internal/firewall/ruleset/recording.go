package ruleset

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/sorting"
)

// Recording gathers elements by owner.
type Recording struct {
	networks  map[string]*firewall.Network
	endpoints map[string]*trace
	gated     map[string]bool // owners of ports with conditions
}

// trace is what an endpoint leaves in the rules.
type trace struct {
	firewall.Endpoint
	ports []publishedPort
	opens []publishedPort
}

// NewRecording returns one of nothing.
func NewRecording() Recording {
	return Recording{networks: map[string]*firewall.Network{}, endpoints: map[string]*trace{}, gated: map[string]bool{}}
}

// Result returns what the elements and marks that were read tell.
func (r *Recording) Result() firewall.Recorded {
	out := firewall.Recorded{Networks: map[string]firewall.Network{}, Endpoints: map[string]firewall.Endpoint{}}
	for owner, n := range r.networks {
		sorting.Ordered(n.Trusted)
		out.Networks[owner] = *n
	}
	for owner, t := range r.endpoints {
		if !r.gated[owner] {
			out.Endpoints[owner] = t.endpoint()
		}
	}
	out.Conditioned = sorting.Keys(r.gated)
	return out
}

// entry returns what is kept under key, made if missing.
func entry[T any](all map[string]*T, key string) *T {
	if all[key] == nil {
		all[key] = new(T)
	}
	return all[key]
}

// Read takes an element.
func (r *Recording) Read(e Elem) {
	v, ok := e.Set.Key.Split(e.Key)
	if !ok || e.Owner == "" || e.Set == &Owners || e.Set == &Strict {
		return
	}
	if slices.Contains(NetworkSets, e.Set) {
		n := entry(r.networks, e.Owner)
		n.Name = e.Owner
		readNetwork(n, e.Set, v)
		return
	}
	if e.Set.Family == unix.NFPROTO_IPV4 || e.Set.Family == unix.NFPROTO_IPV6 {
		r.gated[e.Owner] = true
		return
	}
	t := entry(r.endpoints, e.Owner)
	t.Owner = e.Owner
	switch e.Set {
	case &Guarded:
		t.Port = IIFName.format(v[0])
	case &MACs:
		t.Port, t.MAC = IIFName.format(v[0]), slices.Clone(v[1])
	default:
		t.read(e, v)
	}
}

// readNetwork takes an element of a network.
func readNetwork(n *firewall.Network, s *Set, v [][]byte) {
	if s.ofUnderlay() || s == &Sealed4 || s == &Sealed6 || s.ofDirect() { // of the tunnel, not of the bridge
		return
	}
	bridge := IIFName.format(v[len(v)-1]) // the last field of each set
	policy := func(stronger firewall.Policy) {
		p := &n.IPv4
		if v[0][0] == unix.NFPROTO_IPV6 {
			p = &n.IPv6
		}
		*p = max(*p, stronger)
	}
	n.Bridge = bridge
	switch s {
	case &Internal:
		n.Internal = true
	case &NoHost:
		n.NoHost = true
	case &NoICC:
		n.NoICC = true
	case &Apart:
		n.Apart = true
	case &Closed:
		policy(firewall.Published)
	case &Routed:
		policy(firewall.Routed)
	case &Trusted:
		n.Trusted = append(n.Trusted, IIFName.format(v[0]))
	}
}

// ReadMark takes the comment of a rule in chain marks.
func (r *Recording) ReadMark(comment string) {
	m, ok := ReadMark(comment)
	if !ok {
		return
	}
	for owner, n := range r.networks {
		if (MarkRule{owner, n.Bridge, m.Mark}).Comment() == comment {
			n.AcceptMark = &m.Mark
		}
	}
}

// read takes an element of an endpoint.
func (t *trace) read(e Elem, v [][]byte) {
	for _, f := range BothFamilies() {
		family := firewall.Families{IPv4: f == IPv4(), IPv6: f == IPv6()}
		switch e.Set {
		case &f.Masq:
			t.Masquerade = firewall.Families{IPv4: t.Masquerade.IPv4 || family.IPv4, IPv6: t.Masquerade.IPv6 || family.IPv6}
			t.Bridge = IIFName.format(v[1])
			t.has(v[0])
		case &f.Home: // a tunnel may be one, too
			t.has(v[0])
		case &f.Source:
			if a, ok := netip.AddrFromSlice(e.Data); ok && !slices.Contains(t.Source, a) {
				t.Source = append(t.Source, a)
			}
		case &f.Hairpin[0], &f.Hairpin[1]:
			t.Hairpin, t.Bridge = true, OIFName.format(v[1])
			t.Beside = t.Beside || e.Set == &f.Hairpin[1]
			t.has(v[0])
		case &f.MasqAll[0], &f.MasqAll[1]:
			t.MasqueradeAll, t.Bridge = true, OIFName.format(v[1])
			t.Beside = t.Beside || e.Set == &f.MasqAll[1]
			t.has(v[0])
		case &f.Open, &f.OpenSpan:
			if p, ok := readOpen(f, e, v); ok {
				t.opens = append(t.opens, p)
			}
		case &f.AnyPort, &f.Port, &f.From, &f.Span:
			if p, ok := readPort(f, e, v); ok {
				t.ports = append(t.ports, p)
			}
		}
	}
}

func (t *trace) has(ip []byte) {
	if a, ok := netip.AddrFromSlice(ip); ok && !slices.Contains(t.Addrs, a) {
		t.Addrs = append(t.Addrs, a)
	}
}

// endpoint puts the addresses first that ports go to, as Apply wants them.
func (t *trace) endpoint() firewall.Endpoint {
	e := t.Endpoint
	sorting.Stable(e.Addrs, netip.Addr.Compare)
	sorting.Stable(e.Source, netip.Addr.Compare)
	var targets []netip.Addr
	for _, p := range slices.Concat(t.ports, t.opens) {
		if !slices.Contains(targets, p.target) {
			targets = append(targets, p.target)
		}
	}
	e.Addrs = append(targets, slices.DeleteFunc(e.Addrs, func(a netip.Addr) bool { return slices.Contains(targets, a) })...)
	e.Ports = t.portMaps()
	return e
}
