package firewall

import (
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// recording gathers elements by owner.
type recording struct {
	networks  map[string]*Network
	endpoints map[string]*trace
	gated     map[string]bool // owners of ports with conditions
}

// trace is what an endpoint leaves in the rules.
type trace struct {
	Endpoint
	ports []publishedPort
	opens []publishedPort
}

func newRecording() recording {
	return recording{networks: map[string]*Network{}, endpoints: map[string]*trace{}, gated: map[string]bool{}}
}

// result returns what the elements and marks that were read tell.
func (r *recording) result() Recorded {
	out := Recorded{Networks: map[string]Network{}, Endpoints: map[string]Endpoint{}}
	for owner, n := range r.networks {
		slices.Sort(n.Trusted)
		out.Networks[owner] = *n
	}
	for owner, t := range r.endpoints {
		if !r.gated[owner] {
			out.Endpoints[owner] = t.endpoint()
		}
	}
	out.Conditioned = slices.Sorted(maps.Keys(r.gated))
	return out
}

// entry returns what is kept under key, made if missing.
func entry[T any](all map[string]*T, key string) *T {
	if all[key] == nil {
		all[key] = new(T)
	}
	return all[key]
}

// read takes an element.
func (r *recording) read(e elem) {
	v, ok := e.set.key.split(e.key)
	if !ok || e.owner == "" || e.set == &owners || e.set == &strict {
		return
	}
	if slices.Contains(networkSets, e.set) {
		n := entry(r.networks, e.owner)
		n.Name = e.owner
		readNetwork(n, e.set, v)
		return
	}
	if e.set.family == unix.NFPROTO_IPV4 || e.set.family == unix.NFPROTO_IPV6 {
		r.gated[e.owner] = true
		return
	}
	t := entry(r.endpoints, e.owner)
	t.Owner = e.owner
	switch e.set {
	case &guarded:
		t.Port = iifname.format(v[0])
	case &macs:
		t.Port, t.MAC = iifname.format(v[0]), slices.Clone(v[1])
	default:
		t.read(e, v)
	}
}

// readNetwork takes an element of a network.
func readNetwork(n *Network, s *set, v [][]byte) {
	if s.underneath() {
		return
	}
	bridge := iifname.format(v[len(v)-1]) // the last field of each set
	policy := func(stronger Policy) {
		p := &n.IPv4
		if v[0][0] == unix.NFPROTO_IPV6 {
			p = &n.IPv6
		}
		*p = max(*p, stronger)
	}
	n.Bridge = bridge
	switch s {
	case &internal:
		n.Internal = true
	case &noHost:
		n.NoHost = true
	case &noicc:
		n.NoICC = true
	case &apart:
		n.Apart = true
	case &closed:
		policy(Published)
	case &routed:
		policy(Routed)
	case &trusted:
		n.Trusted = append(n.Trusted, iifname.format(v[0]))
	}
}

// readMark takes the comment of a rule in chain marks.
func (r *recording) readMark(comment string) {
	m, ok := readMark(comment)
	if !ok {
		return
	}
	for owner, n := range r.networks {
		if (markRule{owner, n.Bridge, m.mark}).comment() == comment {
			n.AcceptMark = &m.mark
		}
	}
}

// read takes an element of an endpoint.
func (t *trace) read(e elem, v [][]byte) {
	for _, f := range bothFamilies() {
		family := Families{IPv4: f == ipv4(), IPv6: f == ipv6()}
		switch e.set {
		case &f.masq:
			t.Masquerade = Families{t.Masquerade.IPv4 || family.IPv4, t.Masquerade.IPv6 || family.IPv6}
			t.Bridge = iifname.format(v[1])
			t.has(v[0])
		case &f.home: // a tunnel may be one, too
			t.has(v[0])
		case &f.source:
			if a, ok := netip.AddrFromSlice(e.data); ok && !slices.Contains(t.Source, a) {
				t.Source = append(t.Source, a)
			}
		case &f.hairpin[0], &f.hairpin[1]:
			t.Hairpin, t.Bridge = true, oifname.format(v[1])
			t.Beside = t.Beside || e.set == &f.hairpin[1]
			t.has(v[0])
		case &f.masqAll[0], &f.masqAll[1]:
			t.MasqueradeAll, t.Bridge = true, oifname.format(v[1])
			t.Beside = t.Beside || e.set == &f.masqAll[1]
			t.has(v[0])
		case &f.open, &f.openSpan:
			if p, ok := readOpen(f, e, v); ok {
				t.opens = append(t.opens, p)
			}
		case &f.anyPort, &f.port, &f.from, &f.span:
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
func (t *trace) endpoint() Endpoint {
	e := t.Endpoint
	slices.SortFunc(e.Addrs, netip.Addr.Compare)
	slices.SortFunc(e.Source, netip.Addr.Compare)
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
