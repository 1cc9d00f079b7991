package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/nodefile"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

// Keys of an encrypted network change without a packet lost. Each epoch of keys has a device of
// its own on each host, with its own key and UDP port:
//
//  1. A host that sees a new epoch in the registry makes key and device, and announces the key. It
//     receives by both devices from now on, and sends as before.
//  2. Each peer that has announced a key of the epoch is a peer of the new device, which begins
//     a handshake. The routes to the peer's blocks move to the new device once the handshake is
//     complete: so both can send and receive by it.
//  3. A host all of whose routes have moved announces that it sends by the new epoch only.
//  4. When all hosts have, the older device goes, after retireAfter for what is on its way.
//
// A host that is away keeps the others at the step before. None of this looks at a clock that
// hosts would have to agree on.

const (
	// retireAfter is how long packets may be on their way that were sent before their host said
	// that it sends none by that device any more.
	retireAfter = 500 * time.Millisecond
	// The time until handshakes are looked at again is a part of the time since the epoch was
	// seen, but between these.
	soonestLook, latestLook, lookPart = 30 * time.Millisecond, 2 * time.Second, 10
)

// KeyRegistry is where the hosts of encrypted networks tell each other their keys; etcd.Registry
// is one.
type KeyRegistry interface {
	SetKeys(ctx context.Context, network string, k overlay.HostKeys) error
	Rotate(ctx context.Context, network string, at overlay.KeyEpoch, epoch int) error
	Evict(ctx context.Context, node string) error
	Admit(ctx context.Context, node string) error
}

// secret is what the agent remembers of the keys of a network.
type secret struct {
	epoch  int              // the one that this host changes to, or has
	seen   time.Time        // when epoch was seen first
	moved  time.Time        // when all hosts sent by it, first; zero: not yet
	wanted overlay.HostKeys // to be announced; zero: nothing yet
	healed time.Time        // when an epoch was begun for a peer that is out of reach
	open   bool             // the network is not encrypted: wanted has no keys
}

// secretOf returns what is remembered of a network, to be used under the agent's lock.
func (a *Agent) secretOf(network string) *secret {
	s := a.secrets[network]
	if s == nil {
		s = &secret{}
		a.secrets[network] = s
	}
	return s
}

// secure fills in what a node file says of keys, makes those of this host, and returns what it is
// to say of them once the kernel has what the file says. soon is when to look again; 0: when
// something changes.
func (k keeper) secure(v overlay.View, hosts []overlay.Host, f *nodefile.File) (own overlay.HostKeys, soon time.Duration, err error) {
	store := keyStore{k.stateDir(), f.Network}
	have, err := store.epochs()
	if err != nil {
		return own, 0, err
	}
	s := v.Networks[f.Network]
	current := s.Current(hosts)
	if len(have) > 0 {
		current = max(current, have[0])
	}
	f.Encryption, f.Epochs = s.Terms.Encryption, []int{current}
	older := current - 1
	retired, soon := k.retired(current, len(s.Behind(current, hosts)) == 0)
	if slices.Contains(have, older) && !retired {
		f.Epochs = append(f.Epochs, older)
	} else {
		soon = 0
	}
	for _, epoch := range slices.Backward(f.Epochs) {
		public, err := store.ensure(epoch)
		if err != nil {
			return own, 0, err
		}
		own.Keys = append(own.Keys, overlay.EpochKey{Epoch: epoch, PublicKey: public, Port: plan.EpochPort(f.Port, epoch)})
	}
	met, err := k.met(f)
	if err != nil {
		return own, 0, err
	}
	own.Sends = current
	for i := range f.Nodes {
		n := &f.Nodes[i]
		if n.Name == k.agent.conf.Name {
			n.Keys, n.By = own.Keys, current
			continue
		}
		known := k.known(n.Name)
		if n.Keys, n.By = choose(f.Epochs, s.Keys[n.Name], known, met); n.By != known.By {
			k.agent.log.Debug("node is sent to by another key", "network", f.Network, "peer", n.Name, "epoch", n.By, "before", known.By)
		}
		if n.By != 0 && n.By < own.Sends {
			own.Sends = n.By
		}
	}
	return own, soon, nil
}

// announce has the registry told. Where something could not be done, routes may lead by the
// older device still.
func (k keeper) announce(told, own overlay.HostKeys, connectErr error) {
	if connectErr != nil {
		own.Sends = min(own.Sends, told.Sends)
	}
	k.agent.mu.Lock()
	s := k.agent.secretOf(k.network.Name)
	s.open, s.wanted = false, own
	k.agent.mu.Unlock()
	k.agent.announce.give()
}

func (k keeper) stateDir() string { return k.agent.stateDirOf(k.network) }

// known is what the node file so far says of another host.
func (k keeper) known(name string) nodefile.Node {
	for _, n := range k.before.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nodefile.Node{}
}

// choose returns the keys of a peer that are of epochs, the newest of which comes first, and the
// epoch by which it is sent to; 0: it has none. A registry that knows less than was known is an
// older copy. met says that a handshake with a key is complete.
func choose(epochs []int, told overlay.HostKeys, known nodefile.Node, met map[wireguard.Key]bool) (keys []overlay.EpochKey, by int) {
	before := overlay.HostKeys{Keys: known.Keys}
	if told.Newest() < before.Newest() {
		told = before
	}
	for _, one := range told.Keys {
		if slices.Contains(epochs, one.Epoch) {
			keys = append(keys, one)
		}
	}
	newest := told.Of(epochs[0])
	older := overlay.EpochKey{}
	if len(epochs) > 1 {
		older = told.Of(epochs[1])
	}
	moved := known.By == newest.Epoch && before.Of(newest.Epoch) == newest
	if newest.Epoch != 0 && (older.Epoch == 0 || moved || met[newest.PublicKey]) {
		return keys, newest.Epoch
	}
	return keys, older.Epoch
}

// met are the peers of the newer of two devices with which a handshake is complete.
func (k keeper) met(f *nodefile.File) (map[wireguard.Key]bool, error) {
	if len(f.Epochs) < 2 {
		return nil, nil
	}
	peers, err := k.secrets(f.Network, f.Epochs[0])
	all := map[wireguard.Key]bool{}
	for _, p := range peers {
		all[p.PublicKey] = p.Handshake > 0
	}
	return all, err
}

// retired says that the device of the epoch before may go, and when to look again.
func (k keeper) retired(epoch int, all bool) (yes bool, soon time.Duration) {
	a := k.agent
	a.mu.Lock()
	defer a.mu.Unlock()
	s, now := a.secretOf(k.network.Name), time.Now()
	if s.epoch != epoch {
		s.epoch, s.seen, s.moved = epoch, now, time.Time{}
	}
	switch {
	case !all:
		s.moved = time.Time{}
		return false, min(max(now.Sub(s.seen)/lookPart, soonestLook), latestLook)
	case s.moved.IsZero():
		s.moved = now
	}
	left := retireAfter - now.Sub(s.moved)
	return left <= 0, max(left, soonestLook)
}

// announceLoop tells the registry which keys this host has. The devices have them before.
func (a *Agent) announceLoop(ctx context.Context) error {
	again := rarely
	for {
		if err := a.announce.wait(ctx, 0, again); err != nil {
			return err
		}
		again = rarely
		if a.tellAvailable(ctx) {
			again = mendAgain
		}
		for network, k := range a.unannounced() {
			err := a.conf.Keys.SetKeys(ctx, network, k)
			if errors.Is(err, overlay.ErrTaken) { // the next view tells what is there
				again = mendAgain
				continue
			}
			a.say("keys "+network, err, "keys cannot be announced", "keys announced", "network", network)
			if err != nil {
				again = mendAgain
			}
		}
	}
}

// availability is a registry in which a host is unavailable until its network is up.
type availability interface {
	Available(context.Context) error
}

// tellAvailable tells such a registry, once all networks of this host are up.
func (a *Agent) tellAvailable(ctx context.Context) (failed bool) {
	r, is := a.conf.Registry.(availability)
	if !is || !a.isUnavailable() {
		return false
	}
	err := r.Available(ctx)
	a.say("available", err, "the cluster cannot be told that this node's network is up", "")
	return err != nil
}

// isUnavailable says that the registry takes a network for down that is up.
func (a *Agent) isUnavailable() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.view != nil && a.apart == nil && a.view.Unavailable && len(a.networks) > 0 &&
		!slices.ContainsFunc(a.networks, func(n netconf.AgentNetwork) bool {
			s := a.status[n.Name]
			return s.synced.IsZero() || s.mendErr != nil
		})
}

// unannounced returns what the registry does not say yet.
func (a *Agent) unannounced() map[string]overlay.HostKeys {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := map[string]overlay.HostKeys{}
	if a.view == nil || a.apart != nil {
		return all
	}
	for network, s := range a.secrets {
		told, there := a.view.Networks[network].Keys[a.conf.Name]
		if len(s.wanted.Keys) > 0 && !there || (s.open || len(s.wanted.Keys) > 0) && !told.Same(s.wanted) {
			k := s.wanted
			k.Revision = told.Revision
			all[network] = k
		}
	}
	return all
}

// userspaceLoop has wireguard-go run while the kernel has no WireGuard and a network needs it.
func (a *Agent) userspaceLoop(ctx context.Context) error {
	if a.conf.RunWireGuard == nil {
		return nil
	}
	for {
		if err := a.secret.wait(ctx, 0, rarely); err != nil {
			return err
		}
		encrypted := slices.ContainsFunc(a.situation().networks, func(n netconf.AgentNetwork) bool { return n.Config.Tunnel.Encrypted() })
		if !encrypted || !errors.Is(wireguard.Supported(), wireguard.ErrUnsupported) {
			continue
		}
		err := a.conf.RunWireGuard(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.say("wireguard-go", err, "wireguard-go ended, and is started again", "")
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(mendAgain):
			a.secret.give()
		}
	}
}
