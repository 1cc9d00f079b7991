package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/inotify"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/overlay"
)

const (
	// claimPause gathers what comes in a rush: leases, and others' blocks.
	claimPause = 20 * time.Millisecond
	// claimAgain is how soon a claim that failed is tried again, should nothing
	// change that gives reason to.
	claimAgain = time.Second
	// rarely is how soon a loop looks that has nothing to do: only should a hint
	// have been lost.
	rarely = time.Minute
	// A host takes one more block when less than one address in spareOf is free.
	spareOf = 8
)

// claimLoop agrees on networks, takes blocks, and frees those of hosts that are
// gone.
func (a *Agent) claimLoop(ctx context.Context) error {
	var leases *fsnotify.Watcher
	defer func() {
		if leases != nil {
			_ = leases.Close()
		}
	}()
	again := time.Duration(0)
	for {
		if err := a.claim.wait(ctx, claimPause, cmp.Or(again, rarely)); err != nil {
			return err
		}
		again = 0
		var unwatched error
		if leases == nil {
			leases, unwatched = a.newLeases(ctx)
		}
		now := a.situation()
		for _, n := range now.networks {
			if err := watchLeases(leases, n); err != nil {
				again, unwatched = claimAgain, cmp.Or(unwatched, err) // instead of an event
			}
			err := a.claimNetwork(ctx, now.view, n)
			a.change(n.Name, func(s *status) { s.claimErr = err })
			if err != nil && now.view != nil {
				again = claimAgain
			}
			if errors.Is(err, overlay.ErrTaken) {
				err = nil // another host was faster, as may be
			}
			a.say("claim "+n.Name, err, "no block can be taken", "")
		}
		a.say("leases", inotify.Explain(unwatched), "leases cannot be watched, and are looked at once a second", "leases are watched")
		if now.view != nil && now.view.Settled { // else etcd may only have forgotten that a node is there
			a.reclaim(ctx, *now.view)
		}
	}
}

// newLeases returns a watcher for watchLeases, until ctx ends; nil: the kernel gives none.
func (a *Agent) newLeases(ctx context.Context) (*fsnotify.Watcher, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = w.Close() })
	go a.followLeases(w)
	return w, nil
}

// followLeases hints at every lease, until the watcher is closed.
func (a *Agent) followLeases(w *fsnotify.Watcher) {
	for {
		select {
		case _, open := <-w.Events:
			if !open {
				return
			}
		case _, open := <-w.Errors: // some were lost
			if !open {
				return
			}
		}
		a.claim.give()
	}
}

// errNoWatcher says that there is none; the kernel's error tells why.
var errNoWatcher = errors.New("no watcher")

// watchLeases has the watcher tell when an address of the network is taken or
// given back; of a directory that is not there yet, when it is made. An error: it will not tell.
func watchLeases(w *fsnotify.Watcher, n netconf.AgentNetwork) error {
	if w == nil {
		return errNoWatcher
	}
	dir := cmp.Or(n.DataDir, address.DefaultDataDir)
	if w.Add(filepath.Join(dir, n.Name)) == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return w.Add(dir)
}

// terms are those of a network as this host has it configured.
func (a *Agent) terms(n netconf.AgentNetwork) overlay.Terms {
	t := n.Config.Tunnel
	port := t.PortOf(n.Name)
	if t.Encrypted() && t.Port == 0 {
		port &^= 1 // the second device has the one behind it
	}
	return overlay.Terms{
		Subnets: n.Subnets, Size: overlay.BlockSize(n.Size), VNI: t.VNI, Port: port, IPv6: a.conf.Address.Is6(),
		Encryption: t.Encryption, By: a.conf.Name,
	}
}

func (a *Agent) claimNetwork(ctx context.Context, v *overlay.View, n netconf.AgentNetwork) error {
	if v == nil {
		return nil // that is said elsewhere
	}
	shared := v.Networks[n.Name]
	if !shared.Agreed {
		return a.conf.Registry.Agree(ctx, n.Name, a.terms(n))
	}
	if err := shared.Terms.Differs(a.terms(n)); err != nil {
		if v.Assigned { // each host says its own
			return a.conf.Registry.Agree(ctx, n.Name, a.terms(n))
		}
		return ofNetwork(n.Name, err)
	}
	own := v.Own(n.Name, a.conf.Name)
	use, err := a.usage(ctx, n, own)
	if err != nil || v.Assigned {
		return ofNetwork(n.Name, err)
	}
	return a.claimBlocks(ctx, v, n, use)
}

// claimBlocks takes a block of each subnet that this host has none of, or too few addresses.
func (a *Agent) claimBlocks(ctx context.Context, v *overlay.View, n netconf.AgentNetwork, use []address.Use) error {
	shared := v.Networks[n.Name]
	for _, subnet := range n.Subnets {
		has := false
		var free, capacity uint64
		for _, u := range use {
			if u.IPv6 == subnet.Addr().Is6() {
				has, free, capacity = true, u.Capacity-min(u.Held, u.Capacity), u.Capacity
			}
		}
		if has && free > capacity/spareOf {
			continue
		}
		if !v.Settled && !has {
			return ofNetwork(n.Name, errSettling)
		}
		if !v.Settled {
			continue
		}
		block, err := a.choose(n.Name, shared, subnet)
		if err != nil && has {
			a.say("spare "+n.Name, err, "this node's blocks are nearly full, and there is none left to take", "")
			continue
		}
		if err == nil {
			err = a.conf.Registry.Claim(ctx, n.Name, shared, v.At, block)
		}
		if err != nil {
			return ofNetwork(n.Name, err)
		}
		a.log.Info("block taken", "network", n.Name, "block", block)
	}
	return nil
}

// errSettling keeps a host that does not know the past from taking a block that
// etcd may only have forgotten the owner of.
var errSettling = fmt.Errorf("%w: no host that knows which blocks were given has looked at this etcd yet; see docs/etcd.md", errSoon)

// choose returns a free block: one that we had, as far as there is one. Etcd may
// have been made anew from nothing, and containers are in there.
func (a *Agent) choose(network string, s overlay.Shared, subnet netip.Prefix) (netip.Prefix, error) {
	a.mu.Lock()
	had := a.former[network].Blocks
	a.mu.Unlock()
	for _, b := range had {
		if _, taken := s.Blocks[b]; !taken && subnet.Contains(b.Addr()) && s.Terms.Cut(b) {
			return b, nil
		}
	}
	return s.Choose(subnet, a.conf.Name)
}

func (a *Agent) reclaim(ctx context.Context, v overlay.View) {
	for _, node := range v.Gone() {
		if node == a.conf.Name {
			continue
		}
		freed, err := a.conf.Registry.Reclaim(ctx, v, node)
		a.say("reclaim "+node, err, "blocks of an absent node cannot be freed", "")
		if len(freed) > 0 {
			a.log.Warn("node was absent for too long: its blocks are free", "absent", node, "blocks", freed)
		}
	}
}
