package agent

import (
	"context"
	"fmt"
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
	// A session is renewed every two minutes while there are packets, and Keepalive sends some.
	// It cannot be used any more after three.
	sessionEnds = 190 * time.Second
	// A peer is made anew after firstRenewal, which is longer than a handshake takes: none is
	// under way then. Each time later it takes twice as long, up to lastRenewal.
	firstRenewal, lastRenewal = 300 * time.Millisecond, 30 * time.Second
	// After tellUnmet it is said, and after changeUnmet the keys change, though not more often
	// than every changeAgain.
	tellUnmet, changeUnmet, changeAgain = 20 * time.Second, 3 * time.Minute, time.Hour
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

// outOfReach says that there is no session with a peer that could be used.
func outOfReach(p wireguard.Peer, now time.Time) bool {
	return p.Handshake == 0 || now.Sub(time.Unix(p.Handshake, 0)) > sessionEnds
}

// healer is what the heal loop remembers.
type healer struct {
	*Agent
	open     controllers
	patients map[wireguard.Key]*patient
}

// healLoop looks at the peers of encrypted networks.
func (a *Agent) healLoop(ctx context.Context) error {
	h := healer{a, controllers{}, map[wireguard.Key]*patient{}}
	defer h.open.close()
	next := healEvery
	for {
		if err := a.heal.wait(ctx, soonestLook, next); err != nil {
			return err
		}
		next = healEvery
		seen := map[wireguard.Key]bool{}
		for _, n := range a.situation().networks {
			if !n.Config.Tunnel.Encrypted() {
				continue
			}
			c, err := h.open.get(a.stateDirOf(n))
			if err == nil {
				var soon time.Duration
				soon, err = h.look(ctx, c, n, seen)
				next = min(next, soon)
			}
			a.say("heal "+n.Name, err, "peers cannot be looked at", "")
		}
		for k := range h.patients {
			if !seen[k] {
				delete(h.patients, k)
			}
		}
	}
}

// look compares the peers of a network with its node file, and heals. soon is when to look again.
func (h *healer) look(ctx context.Context, c *engine.Controller, n netconf.AgentNetwork, seen map[wireguard.Key]bool) (soon time.Duration, err error) {
	soon = healEvery
	f, err := c.NodeFile(n.Name)
	if err != nil {
		return soon, nil // the mend loop tells
	}
	var unmet []string
	lost := time.Duration(0) // how long the one that has been out of reach longest has
	for _, epoch := range f.Epochs {
		have, err := c.Secrets(n.Name, epoch)
		if err != nil {
			return soon, err
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
			want := endpointOf(node, k)
			if !there || p.Endpoint != want {
				h.mend.give() // which puts it back
				continue
			}
			if !outOfReach(p, time.Now()) {
				if delete(h.patients, k.PublicKey); node.By < epoch {
					h.mend.give() // which moves its routes
				}
				continue
			}
			wait, since, err := h.treat(c, n.Name, epoch, p, node)
			if err != nil {
				return soon, err
			}
			if soon = min(soon, wait); since >= tellUnmet && node.By == epoch {
				unmet = append(unmet, fmt.Sprintf("no handshake with node %s for %s: see that its ln-agent runs, that UDP from %s to %s gets "+
					"through both ways, and that no rule translates it; if all is well there, run lnctl overlay rotate-keys %s", node.Name, since.Round(time.Second), h.conf.Address, want, n.Name))
				lost = max(lost, since)
			}
		}
	}
	h.change(n.Name, func(s *status) { s.unmet = unmet })
	if lost >= changeUnmet {
		h.renewEpoch(ctx, n.Name)
	}
	return soon, nil
}

// treat makes a peer anew that is out of reach, when it is time. wait is when to look again, and
// since how long the peer has been so.
func (h *healer) treat(c *engine.Controller, network string, epoch int, p wireguard.Peer, node nodefile.Node) (wait, since time.Duration, err error) {
	now := time.Now()
	s := h.patients[p.PublicKey]
	if s == nil {
		s = &patient{since: now, renewed: now}
		h.patients[p.PublicKey] = s
	}
	since = now.Sub(s.since)
	if !overlay.Begins(h.conf.Address, node.Address) {
		return healEvery, since, nil // the other host does
	}
	if left := s.wait() - now.Sub(s.renewed); left > 0 {
		return max(left, soonestLook), since, nil
	}
	s.renewed = now
	s.tries++
	h.log.Debug("peer is made anew", "network", network, "epoch", epoch, "peer", node.Name, "try", s.tries)
	p.Keepalive = overlay.Keepalive
	return s.wait(), since, c.Renew(network, epoch, p)
}

// renewEpoch changes the keys of a network with a host that lives and is out of reach.
func (h *healer) renewEpoch(ctx context.Context, network string) {
	h.mu.Lock()
	s := h.secretOf(network)
	due := time.Since(s.healed) >= changeAgain
	if due {
		s.healed = time.Now()
	}
	h.mu.Unlock()
	if !due {
		return
	}
	h.log.Warn("keys change, as a host is out of reach", "network", network)
	_, err := h.rotate(ctx, network)
	h.say("renew "+network, err, "keys cannot be changed", "")
}

// endpointOf is where a host's device of a key listens.
func endpointOf(n nodefile.Node, k overlay.EpochKey) netip.AddrPort {
	return netip.AddrPortFrom(n.Address, k.Port)
}
