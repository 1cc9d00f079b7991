package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/nodefile"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

// No event tells of a handshake, or of an endpoint that has moved: devices are looked at. A peer
// that is out of reach is made anew, again and again; if that does not help, the keys of the
// network are changed.
const (
	healEvery = 5 * time.Second
	// A peer is made anew after firstRenewal, which is longer than a handshake takes: none is
	// under way then. Each time later it takes twice as long, up to lastRenewal.
	firstRenewal, lastRenewal = 300 * time.Millisecond, 30 * time.Second
	// After tellUnmet it is said. After Config.HealAfter the keys change, though not more often
	// than every changeAgain.
	tellUnmet, changeAgain = 20 * time.Second, time.Hour
)

// patient is a peer that is out of reach.
type patient struct {
	since   time.Time // when it was seen so first
	renewed time.Time // when it was made anew last, or since
	tries   int
}

// wait is how long after renewed it is made anew again.
func (p patient) wait() time.Duration {
	return min(firstRenewal<<min(p.tries, 10), lastRenewal)
}

// healer is what the heal loop remembers.
type healer struct {
	*Agent
	open     controllers
	heard    map[wireguard.Key]*hearing
	patients map[wireguard.Key]*patient
}

// healLoop looks at the peers of encrypted networks.
func (a *Agent) healLoop(ctx context.Context) error {
	h := healer{a, controllers{}, map[wireguard.Key]*hearing{}, map[wireguard.Key]*patient{}}
	defer h.open.close()
	next := healEvery
	for {
		if err := a.heal.wait(ctx, soonestLook, next); err != nil {
			return err
		}
		next = healEvery
		seen := map[wireguard.Key]bool{}
		now := a.situation()
		for _, n := range now.networks {
			if !n.Config.Tunnel.Encrypted() {
				continue
			}
			c, err := h.open.get(a.stateDirOf(n))
			if err == nil {
				var soon time.Duration
				soon, err = h.look(ctx, c, n, now.view, seen)
				next = min(next, soon)
			}
			a.say("heal "+n.Name, err, "peers cannot be looked at", "")
		}
		maps.DeleteFunc(h.heard, func(k wireguard.Key, _ *hearing) bool { return !seen[k] })
		maps.DeleteFunc(h.patients, func(k wireguard.Key, _ *patient) bool { return !seen[k] })
	}
}

// sight is what a look at the peers of a network tells.
type sight struct {
	soon  time.Duration // until the next one
	unmet []string      // peers that are out of reach, and what to do
	stuck string        // host that lives, and has been out of reach for HealAfter; empty: none
}

// look compares the peers of a network with its node file, and heals. soon is when to look again.
func (h *healer) look(ctx context.Context, c *engine.Controller, n netconf.AgentNetwork, v *overlay.View, seen map[wireguard.Key]bool) (soon time.Duration, err error) {
	f, err := c.NodeFile(n.Name)
	if err != nil || len(f.Epochs) == 0 {
		return healEvery, nil // the mend loop tells
	}
	all := sight{soon: healEvery}
	for _, epoch := range f.Epochs {
		have, err := c.Secrets(n.Name, epoch)
		if err != nil {
			return healEvery, err
		}
		at := map[wireguard.Key]wireguard.Peer{}
		for _, p := range have {
			at[p.PublicKey] = p
		}
		for _, node := range f.Nodes {
			k := overlay.HostKeys{Keys: node.Keys}.Of(epoch)
			if node.Name == h.conf.Name || k.Epoch == 0 {
				continue
			}
			seen[k.PublicKey] = true
			p, there := at[k.PublicKey]
			if !there || p.Endpoint != endpointOf(node, k) {
				h.mend.give() // which puts it back
				continue
			}
			if err := h.visit(c, n.Name, epoch, p, node, v, &all); err != nil {
				return healEvery, err
			}
		}
	}
	h.change(n.Name, func(s *status) { s.unmet, s.epoch = all.unmet, f.Epochs[0] })
	if all.stuck != "" {
		h.renewEpoch(ctx, n.Name, all.stuck)
	}
	return all.soon, nil
}

// visit looks at one peer of the device of an epoch.
func (h *healer) visit(c *engine.Controller, network string, epoch int, p wireguard.Peer, node nodefile.Node, v *overlay.View, all *sight) error {
	now := time.Now()
	heard := h.heard[p.PublicKey]
	if heard == nil {
		heard = &hearing{}
		h.heard[p.PublicKey] = heard
	}
	heard.look(p, now)
	why := heard.outOfReach(p, now, !overlay.Begins(h.conf.Address, node.Address))
	if why == "" {
		if delete(h.patients, p.PublicKey); node.By < epoch {
			h.mend.give() // which moves its routes
		}
		return nil
	}
	wait, since, err := h.treat(c, network, epoch, p, node, why)
	if err != nil {
		return err
	}
	all.soon = min(all.soon, wait)
	if node.By != epoch {
		return nil
	}
	if since >= tellUnmet {
		all.unmet = append(all.unmet, fmt.Sprintf("%s node %s for %s: see that its ln-agent runs, that UDP from %s to %s gets "+
			"through both ways, and that no rule translates it; if all is well there, run lnctl overlay rotate-keys %s", why, node.Name, since.Round(time.Second), h.conf.Address, p.Endpoint, network))
	}
	if h.conf.HealAfter > 0 && since >= h.conf.HealAfter && v != nil && v.Members[node.Name].Live {
		all.stuck = node.Name // one that is away would keep the others half-way
	}
	return nil
}

// treat makes a peer anew that is out of reach, when it is time. wait is when to look again, and
// since how long the peer has been so.
func (h *healer) treat(c *engine.Controller, network string, epoch int, p wireguard.Peer, node nodefile.Node, why string) (wait, since time.Duration, err error) {
	now := time.Now()
	s := h.patients[p.PublicKey]
	if s == nil {
		s = &patient{since: now, renewed: now}
		h.patients[p.PublicKey] = s
	}
	since = now.Sub(s.since)
	begins := overlay.Begins(h.conf.Address, node.Address)
	due := s.wait()
	if !begins { // the other host does first: a peer that goes while it begins would be in the way
		due = lastRenewal
	}
	if left := due - now.Sub(s.renewed); left > 0 {
		return min(max(left, soonestLook), healEvery), since, nil
	}
	s.renewed = now
	s.tries++
	h.log.Debug("peer is made anew", "network", network, "epoch", epoch, "peer", node.Name, "try", s.tries, "why", why)
	if p.Keepalive = 0; begins {
		p.Keepalive = overlay.Keepalive
	}
	return min(s.wait(), healEvery), since, c.Renew(network, epoch, p)
}

// renewEpoch changes the keys of a network with a host that lives and is out of reach.
func (h *healer) renewEpoch(ctx context.Context, network, node string) {
	h.mu.Lock()
	s := h.secretOf(network)
	due := s.healed.IsZero() || time.Since(s.healed) >= changeAgain
	h.mu.Unlock()
	if !due {
		return
	}
	_, err := h.rotate(ctx, network)
	switch {
	case errors.Is(err, overlay.ErrTaken):
		err = nil // another host was faster
	case err == nil:
		h.log.Warn("keys change, as a host is out of reach", "network", network, "peer", node)
	}
	h.say("renew "+network, err, "a host is out of reach, and the keys cannot be changed", "")
	if err != nil {
		return // the next look tries again
	}
	h.mu.Lock()
	h.secretOf(network).healed = time.Now()
	h.mu.Unlock()
}

// endpointOf is where a host's device of a key listens.
func endpointOf(n nodefile.Node, k overlay.EpochKey) netip.AddrPort {
	return netip.AddrPortFrom(n.Address, k.Port)
}

// A session that ended is not the only one that is of no use: its packets may be dropped on the
// way, or by the other host. How long a peer may be silent follows from WireGuard's own times
// (the whitepaper, section 6).
const (
	// A packet with data or of a handshake is answered: data within 10 seconds, by an
	// empty packet if there is no other, and a handshake at once, which is tried again every 5
	// seconds. owed is two such answers, and a new handshake.
	owed = 25 * time.Second
	// A peer that begins sends something every Keepalive seconds. quiet is two of these, and the
	// 15 seconds after which WireGuard itself begins a new handshake.
	quiet = (2*overlay.Keepalive + 15) * time.Second
	// emptyPacket is a keepalive, in bytes: header and tag.
	emptyPacket = 32
)

// hearing is what looks at a peer have told.
type hearing struct {
	looked         time.Time // when it was looked at last; zero: never
	at             time.Time // when it was seen first that something had come, last
	asked          time.Time // when it was seen that it has to answer; zero: it owes no answer
	received, sent uint64
}

// look takes down what a device tells. Counters that are less than before are of a peer that was
// made anew.
func (e *hearing) look(p wireguard.Peer, now time.Time) {
	keepalives := 1 + uint64(now.Sub(e.looked)/(overlay.Keepalive*time.Second))
	switch {
	case e.looked.IsZero() || p.Received > e.received || p.Received < e.received && p.Received > 0:
		e.at, e.asked = now, time.Time{}
	case !e.asked.IsZero():
	case p.Sent > e.sent+keepalives*emptyPacket || p.Sent < e.sent && p.Sent > 0:
		e.asked = now
	}
	e.looked, e.received, e.sent = now, p.Received, p.Sent
}

// outOfReach says why there is no session with a peer that could be used; empty: there is one.
// kept says that the peer is the one that sends keepalives.
func (e *hearing) outOfReach(p wireguard.Peer, now time.Time, kept bool) (why string) {
	switch {
	case p.Handshake == 0 || now.Sub(time.Unix(p.Handshake, 0)) > overlay.SessionEnds:
		return "no handshake with"
	case !e.asked.IsZero() && now.Sub(e.asked) > owed:
		return "no answer from"
	case kept && now.Sub(e.at) > quiet:
		return "no packet from"
	}
	return ""
}
