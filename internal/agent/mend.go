package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/nodefile"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/returnpath"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

const (
	// mendPause gathers what comes in a rush, our own changes first of all.
	// It is as long as the last look took, if that was longer, up to mendPauseMost: a look that
	// the kernel held up tells nothing of how long the next one takes.
	mendPause, mendPauseMost = 20 * time.Millisecond, 500 * time.Millisecond
	// mendAgain is how soon what failed is tried again, should no hint come.
	mendAgain = time.Second
	// The node file is written for a later date only once this part of the time
	// between has passed.
	untilSteps = 10
)

// mendLoop has the kernel and the node files follow.
func (a *Agent) mendLoop(ctx context.Context) error {
	again, took := time.Duration(0), time.Duration(0)
	open := controllers{}
	defer open.close()
	paths, err := returnpath.Open()
	if err != nil {
		return err
	}
	defer paths.Close()
	for {
		if err := a.mend.wait(ctx, min(max(mendPause, took), mendPauseMost), cmp.Or(again, rarely)); err != nil {
			return err
		}
		again = 0
		now, start := a.situation(), time.Now()
		for _, n := range now.networks {
			c, err := open.get(cmp.Or(n.StateDir, a.conf.StateDir))
			soon := time.Duration(0)
			if err == nil {
				soon, err = a.mendNetwork(ctx, c, paths, now.view, n)
			}
			if soon > 0 && (again == 0 || soon < again) {
				again = soon
			}
			err = ofNetwork(n.Name, err)
			a.change(n.Name, func(s *status) { s.mendErr = err })
			a.say("mend "+n.Name, err, "network not reconciled", "network reconciled", "network", n.Name)
			if a.isUnavailable() {
				a.announce.give()
			}
			if err != nil && again == 0 {
				again = mendAgain
			}
		}
		took = time.Since(start)
	}
}

// controllers are kept, by state directory: each has sockets.
type controllers map[string]*engine.Controller

func (open controllers) get(dir string) (*engine.Controller, error) {
	if c := open[dir]; c != nil {
		return c, nil
	}
	c, err := engine.New(engine.WithStateDir(dir), engine.SpansHosts())
	if err == nil {
		open[dir] = c
	}
	return c, err
}

func (open controllers) close() {
	for _, c := range open {
		c.Close()
	}
}

// stateDirOf is where a network's records are.
func (a *Agent) stateDirOf(n netconf.AgentNetwork) string { return cmp.Or(n.StateDir, a.conf.StateDir) }

// mendNetwork looks after one network. soon is when to look again, should nothing change; 0: any
// time.
func (a *Agent) mendNetwork(ctx context.Context, c *engine.Controller, paths *returnpath.Paths, v *overlay.View, n netconf.AgentNetwork) (soon time.Duration, err error) {
	start := time.Now()
	before, err := c.NodeFile(n.Name)
	if err != nil && !errors.Is(err, model.ErrNotReady) {
		a.log.Warn("node file is made anew", "network", n.Name, "error", err)
	}
	k := keeper{agent: a, controller: c, network: n, before: before, paths: paths, secrets: c.Secrets, define: func(f nodefile.File) (spanning, error) {
		return c.DefineNetwork("overlay", n.Name, engine.WithConfig(f.Apply(n.Config)))
	}}
	switch {
	case v == nil && len(before.Nodes) == 0:
		return 0, nil // nothing is known yet
	case v == nil:
		_, err = k.connect(ctx, before) // as of before we were restarted
	default:
		soon, err = k.follow(ctx, *v)
	}
	a.metrics.reconcile.Observe(time.Since(start).Seconds())
	return soon, err
}

// keeper looks after one network, once.
type keeper struct {
	agent      *Agent
	controller *engine.Controller
	network    netconf.AgentNetwork
	before     nodefile.File     // zero: none
	paths      *returnpath.Paths // nil: none are kept
	// define returns the network as a node file has it.
	define func(nodefile.File) (spanning, error)
	// secrets are the peers of the device of an epoch, as the kernel has them.
	secrets func(network string, epoch int) ([]wireguard.Peer, error)
}

// spanning is a network that spans hosts, as the kernel of this one has it.
type spanning interface {
	Connect(context.Context) (engine.Connected, error)
	Heal(context.Context) error
	Disconnect(context.Context) error
}

var _ spanning = (*engine.Network)(nil)

// follow brings kernel and node file to what a view says. soon is as of mendNetwork.
func (k keeper) follow(ctx context.Context, v overlay.View) (soon time.Duration, err error) {
	a, n := k.agent, k.network
	shared := v.Networks[n.Name]
	if !shared.Agreed {
		return 0, fmt.Errorf("%w: its hosts have not agreed on it yet", errSoon)
	}
	if err := shared.Terms.Differs(a.terms(n)); err != nil {
		return 0, err
	}
	if by, is := k.isEvicted(v); is {
		return 0, k.withdrawEvicted(ctx, by)
	}
	hosts, problems := v.Hosts(n.Name)
	hosts, more, err := withoutBroadcast(hosts)
	if err != nil {
		return 0, err
	}
	problems = append(problems, more...)
	own := v.Own(n.Name, a.conf.Name)
	a.change(n.Name, func(s *status) { s.problems, s.blocks = problems, own })
	k.tellLost(shared, own)
	if !serves(own, n.Subnets) {
		return 0, errors.Join(fmt.Errorf("%w: this node has no block yet", errSoon), k.withdraw(ctx, shared))
	}
	if !slices.ContainsFunc(hosts, func(h overlay.Host) bool { return h.Name == a.conf.Name }) {
		return 0, errors.New("this node is not among its hosts: another one has its address")
	}
	f := k.file(v, hosts, own)
	var keys overlay.HostKeys
	if shared.Terms.Encryption != "" {
		if keys, soon, err = k.secure(v, hosts, &f); err != nil {
			return 0, err
		}
	}
	k.addDirect(&f)
	up, err := k.connect(ctx, f)
	if up && err == nil && f.Encryption == "" {
		k.announceDirect(f)
	}
	if up && f.Encryption != "" {
		k.announce(shared.Keys[a.conf.Name], keys, err)
		a.heal.give()
		err = errors.Join(err, keyStore{k.stateDir(), n.Name}.keep(f.Epochs...))
	}
	return soon, err
}

// serves says whether there is a block of each subnet.
func serves(own, subnets []netip.Prefix) bool {
	for _, s := range subnets {
		if !slices.ContainsFunc(own, s.Overlaps) {
			return false
		}
	}
	return true
}

// tellLost is loud about blocks that were ours and are another node's, or that
// we do without, having others.
func (k keeper) tellLost(s overlay.Shared, own []netip.Prefix) {
	for _, b := range append(slices.Clone(k.before.Blocks), k.former().Blocks...) {
		other := s.Blocks[b].Node
		if slices.Contains(own, b) || other == "" && !serves(own, k.network.Subnets) {
			k.agent.setLost(b, false)
			continue
		}
		if !k.agent.setLost(b, true) {
			continue // said before: what was left of it could not be removed yet
		}
		k.agent.metrics.lost.WithLabelValues(k.network.Name).Inc()
		k.agent.log.Error("BLOCK LOST: this node was away for so long that its block was given up. "+
			"Containers with addresses in it are cut off and have to be made anew", "network", k.network.Name, "block", b, "now of", other)
	}
}

// setLost notes whether a block is lost, and says whether that is news.
func (a *Agent) setLost(b netip.Prefix, lost bool) (news bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	news = a.lost[b] != lost
	if lost {
		a.lost[b] = true
	} else {
		delete(a.lost, b)
	}
	return news
}

func (k keeper) former() nodefile.File {
	k.agent.mu.Lock()
	defer k.agent.mu.Unlock()
	return k.agent.former[k.network.Name]
}

func (k keeper) setFormer(f nodefile.File) {
	k.agent.mu.Lock()
	defer k.agent.mu.Unlock()
	k.agent.former[k.network.Name] = f
}

// withdraw has no more addresses given where there is no block to give them out
// of. The tunnel stays while our old blocks are free, as we may get them again;
// if one is another node's, no host has a route to this one any more.
func (k keeper) withdraw(ctx context.Context, s overlay.Shared) error {
	if len(k.before.Nodes) > 0 {
		k.setFormer(k.before)
	}
	former := k.former()
	if !slices.ContainsFunc(former.Blocks, func(b netip.Prefix) bool { h, taken := s.Blocks[b]; return taken && h.Node != k.agent.conf.Name }) {
		return k.controller.DeleteNodeFile(k.network.Name)
	}
	net, err := k.define(former)
	if err != nil {
		return err
	}
	// The next try still finds in former the routes that could not be removed.
	err = errors.Join(net.Disconnect(ctx), k.withoutReturns(ctx))
	if err == nil {
		k.setFormer(nodefile.File{})
	}
	return err
}

func (k keeper) file(v overlay.View, hosts []overlay.Host, own []netip.Prefix) nodefile.File {
	t := v.Networks[k.network.Name].Terms
	f := nodefile.File{
		Network: k.network.Name, VNI: t.VNI, Port: t.Port, Device: k.network.Config.Tunnel.Device,
		Self: k.agent.conf.Address, Blocks: own, Until: v.Until, Subnets: t.Subnets,
	}
	for _, h := range hosts {
		n := nodefile.Node{Name: h.Name, Address: h.Address, Blocks: h.Blocks}
		for _, b := range h.Blocks {
			e := v.Networks[k.network.Name].Blocks[b].Epoch
			n.Epochs = append(n.Epochs, [2]int64{e.Generation, e.Revision})
		}
		f.Nodes = append(f.Nodes, n)
	}
	f.Origin = originOf(v.At, k.before, f)
	f.Until = putOff(k.before.Until, f.Until, nodefile.Uptime())
	return f
}

// putOff returns the date that a node file gets. Put off every time that our
// right to the blocks was renewed, it would change all the time.
func putOff(before, until, now int64) int64 {
	if left := before - now; left > 0 && before <= until && until-before < left/untilSteps {
		return before
	}
	return until
}

// connect brings the kernel to what a node file says, and writes it. A block
// that is given up goes out of the file first, one that is new comes in last.
// So does a device that goes: no ADD makes it again. up says that there is a tunnel.
func (k keeper) connect(ctx context.Context, f nodefile.File) (up bool, err error) {
	a, start := k.agent, time.Now()
	net, err := k.define(f)
	if err != nil {
		return false, err
	}
	f.MTU = k.before.MTU
	// Of an encrypted network the file is never behind the kernel: an agent that is killed here, and
	// restarted, would take peers away that are new.
	if lacks(f.Blocks, k.before.Blocks) || lacks(f.Epochs, k.before.Epochs) || f.Encryption != "" && f.MTU != 0 {
		if _, err := k.controller.SaveNodeFile(f); err != nil {
			return false, err
		}
	}
	done, err := net.Connect(ctx)
	if done.Up {
		k.setFormer(nodefile.File{})
		f.MTU = done.MTU
		_, saveErr := k.controller.SaveNodeFile(f)
		err = errors.Join(err, saveErr, k.serve(ctx, f))
	}
	err = errors.Join(err, k.heal(ctx, net))
	// Only now can an ADD work by what health and metrics say.
	a.change(k.network.Name, func(s *status) {
		s.peers, s.lacking = done.Peers, done.Lacking
		if err == nil {
			s.synced = time.Now()
		}
	})
	if len(done.Dropped) > 0 {
		a.log.Error("gateway addresses of blocks that are not this node's any more are removed: containers there are cut off", "network", k.network.Name, "addresses", done.Dropped)
	}
	if done.Restored && !done.Created {
		a.log.Warn("rules were gone, and are there again", "network", k.network.Name)
	}
	if done.Created || done.Changes > 0 {
		a.metrics.changes.WithLabelValues(k.network.Name).Add(float64(done.Changes))
		a.log.Info("network brought up to date", "network", k.network.Name, "peers", done.Peers, "changes", done.Changes, "made", done.Created,
			"took", fmt.Sprintf("%.1fms", float64(time.Since(start).Microseconds())/1000))
	}
	return done.Up, err
}

// heal puts back what containers need on this host beside the tunnel: the bridge with its
// addresses and ports, rules, forwarding. What is missing for the first time may be on its way: an
// ADD or a DEL is at work on it.
func (k keeper) heal(ctx context.Context, net spanning) error {
	a := k.agent
	err := net.Heal(ctx)
	if err == nil {
		return nil
	}
	a.mu.Lock()
	first := a.status[k.network.Name].mendErr == nil
	a.mu.Unlock()
	if first {
		return fmt.Errorf("%w: %w", errSoon, err)
	}
	return err
}

// lacks says that something of before is not in now.
func lacks[T comparable](now, before []T) bool {
	return slices.ContainsFunc(before, func(v T) bool { return !slices.Contains(now, v) })
}
