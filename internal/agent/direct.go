package agent

import (
	"context"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/nodefile"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/tunnel"
)

// Of a network with directRouting each host announces by which MACs and addresses it can be
// reached on its segment, once its own rules are in the kernel. Another one to which it is
// no farther than a frame then takes its packets also without a tunnel, and asks by such a
// packet whether its own get there. Only what is answered has blocks led to by this way. So no
// host has to know of another one how its rules are, and where a switch or a cloud drops such
// packets, the tunnel stays.

const (
	// directEvery is how often all are asked that may be reached without a tunnel.
	directEvery = 5 * time.Second
	// A host that has not answered since it may be so is asked again after directSoon, directTries
	// times.
	directSoon, directTries = 300 * time.Millisecond, 10
	// directPause gathers changes of the host's own routes.
	directPause = 50 * time.Millisecond
	// knockWait is how long an answer may take.
	knockWait = 500 * time.Millisecond
)

// segment is what was found out about the segment of this host, for a network.
type segment struct {
	device string
	own    tunnel.Link                // without MACs: there is none
	peers  map[string]*overlay.Direct // by host
	asked  map[string]bool            // the hosts that were asked since they are in peers
}

// directLoop finds out which hosts are reached without a tunnel.
func (a *Agent) directLoop(ctx context.Context) error {
	s, err := tunnel.OpenSegments()
	if err != nil {
		return err
	}
	defer s.Close()
	tries := 0
	for next := rarely; ; {
		if err := a.direct.wait(ctx, directPause, next); err != nil {
			return err
		}
		next = rarely
		now := a.situation()
		for _, n := range now.networks {
			if now.view == nil || !n.Config.Tunnel.DirectRouting {
				continue
			}
			news, silent, err := a.lookAround(ctx, s, *now.view, n)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			a.say("segment "+n.Name, err, "hosts of the same segment cannot be looked for", "")
			if tries++; news {
				tries = 0
			}
			if next = min(next, directEvery); silent && tries < directTries {
				next = directSoon
			}
		}
	}
}

// lookAround looks which hosts of a network are on the segment, and asks them. news says that
// there are others than before, and silent that one has not answered.
func (a *Agent) lookAround(ctx context.Context, s *tunnel.Segments, v overlay.View, n netconf.AgentNetwork) (news, silent bool, err error) {
	device, own, err := s.Own(a.conf.Address)
	if err != nil {
		return false, false, err
	}
	hosts, _ := v.Hosts(n.Name)
	now := segment{device: device, own: own, peers: map[string]*overlay.Direct{}, asked: map[string]bool{}}
	for _, h := range hosts {
		link := v.Networks[n.Name].Keys[h.Name].Direct
		if h.Name == a.conf.Name || len(link.MACs) == 0 || device == "" {
			continue
		}
		by, err := s.To(h.Address)
		if err != nil {
			return false, false, err
		}
		if by == device { // what leaves by another one has another MAC than is announced
			now.peers[h.Name] = &overlay.Direct{Device: device, Link: link}
		}
	}
	news = a.setSegment(n.Name, now)
	knocks, of := now.knocks(hosts, v.Own(n.Name, a.conf.Name))
	answered, err := tunnel.KnockAll(ctx, knocks, knockWait)
	if err != nil {
		return news, true, err
	}
	for i, k := range knocks {
		p := now.peers[of[i]]
		if silent = silent || !answered[i]; !answered[i] {
			continue
		}
		if k.For.Is6() {
			p.IPv6 = true
		} else {
			p.IPv4 = true
		}
	}
	a.setAnswers(n.Name, now)
	return news, silent, nil
}

// knocks asks each host by each family, from and to the first address of a block.
func (s segment) knocks(hosts []overlay.Host, own []netip.Prefix) (all []tunnel.Knock, of []string) {
	for _, h := range hosts {
		d := s.peers[h.Name]
		if d == nil {
			continue
		}
		for _, is6 := range []bool{false, true} {
			ofFamily := func(p netip.Prefix) bool { return p.Addr().Is6() == is6 }
			from, to := slices.IndexFunc(own, ofFamily), slices.IndexFunc(h.Blocks, ofFamily)
			back := (&overlay.Direct{Link: s.own}).Via(h.Address, is6) // of the other family without an address here there is no way
			if from < 0 || to < 0 || !d.Via(h.Address, is6).IsValid() || !back.IsValid() {
				continue
			}
			all = append(all, tunnel.Knock{Device: s.device, To: d.MACs[0], From: own[from].Masked().Addr(), For: h.Blocks[to].Masked().Addr()})
			of = append(of, h.Name)
		}
	}
	return all, of
}

// setSegment takes over which hosts may be reached, of which those that were known keep their
// answers. news says that something has changed.
func (a *Agent) setSegment(network string, now segment) (news bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before, known := a.segments[network]
	next := segment{now.device, now.own, map[string]*overlay.Direct{}, map[string]bool{}}
	for name, p := range now.peers {
		one := *p
		if was := before.peers[name]; was != nil && was.Device == one.Device && was.Same(one.Link) {
			one.IPv4, one.IPv6 = was.IPv4, was.IPv6
			next.asked[name] = before.asked[name]
		}
		next.peers[name] = &one
	}
	if known && reflect.DeepEqual(before, next) {
		return false
	}
	a.segments[network] = next
	a.mend.give()
	return true
}

// setAnswers takes over which hosts have answered.
func (a *Agent) setAnswers(network string, now segment) {
	for name := range now.peers {
		now.asked[name] = true
	}
	a.mu.Lock()
	before := a.segments[network]
	a.segments[network] = now
	a.mu.Unlock()
	if reflect.DeepEqual(before, now) {
		return
	}
	for name, p := range now.peers {
		if was := before.peers[name]; was != nil && (was.IPv4 != p.IPv4 || was.IPv6 != p.IPv6) {
			a.log.Info("way to a host of the same segment", "network", network, "peer", name, "device", p.Device, "ipv4", p.IPv4, "ipv6", p.IPv6)
		}
	}
	a.mend.give()
}

// addDirect fills in which hosts of a node file are reached without a tunnel. Before this agent has
// looked, that is what the one before it has found out.
func (k keeper) addDirect(f *nodefile.File) {
	f.DirectRouting = k.network.Config.Tunnel.DirectRouting
	if !f.DirectRouting {
		return
	}
	k.agent.mu.Lock()
	s, looked := k.agent.segments[k.network.Name]
	peers, asked := maps.Clone(s.peers), maps.Clone(s.asked)
	k.agent.mu.Unlock()
	for i := range f.Nodes {
		n := &f.Nodes[i]
		known := k.known(n.Name).Direct
		switch d := peers[n.Name]; {
		case !looked:
			n.Direct = known
		case n.Name == k.agent.conf.Name && len(s.own.MACs) > 0:
			n.Direct = &overlay.Direct{Device: s.device, Link: s.own}
		case d != nil:
			one := *d
			if !asked[n.Name] && known != nil && known.Device == one.Device && known.Same(one.Link) {
				one.IPv4, one.IPv6 = known.IPv4, known.IPv6
			}
			n.Direct = &one
		}
	}
}

// announceDirect has the registry told by what this host can be reached without a tunnel, now that
// its rules are there; or that it cannot.
func (k keeper) announceDirect(f nodefile.File) {
	var own tunnel.Link
	for _, n := range f.Nodes {
		if n.Name == k.agent.conf.Name && n.Direct != nil {
			own = n.Direct.Link
		}
	}
	k.agent.mu.Lock()
	s := k.agent.secretOf(k.network.Name)
	s.open, s.wanted = true, overlay.HostKeys{Direct: own}
	k.agent.mu.Unlock()
	k.agent.announce.give()
}
