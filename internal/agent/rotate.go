package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

// ErrUnsettled: the keys of a network cannot be changed, as not all of its hosts have those of
// the change before.
var ErrUnsettled = errors.New("the hosts have not all got the keys of the last change yet")

// errApart: what other hosts say is not known now.
var errApart = errors.New("not in touch with etcd")

// Rotate begins the next epoch of keys of a network.
func (a *Agent) rotate(ctx context.Context, network string) (epoch int, err error) {
	n, v, err := a.encrypted(network)
	if err != nil {
		return 0, err
	}
	shared := v.Networks[n.Name]
	hosts, _ := v.Hosts(n.Name)
	epoch = shared.Current(hosts)
	if behind := shared.Unsettled(epoch, hosts); len(behind) > 0 {
		return 0, fmt.Errorf("%w: see that ln-agent runs on %s, or evict a host that is gone for good", ErrUnsettled, strings.Join(behind, ", "))
	}
	epoch++
	if err := a.conf.Keys.Rotate(ctx, network, shared.Epoch, epoch); err != nil {
		return 0, err
	}
	a.log.Info("keys change", "network", network, "epoch", epoch)
	return epoch, nil
}

// encrypted returns an encrypted network, and what the registry says now.
func (a *Agent) encrypted(network string) (n netconf.AgentNetwork, v *overlay.View, err error) {
	now := a.situation()
	for _, n = range now.networks {
		switch {
		case n.Name != network:
			continue
		case !n.Config.Tunnel.Encrypted():
			return n, nil, fmt.Errorf("network %s is not encrypted", network)
		}
		a.mu.Lock()
		apart := a.apart
		a.mu.Unlock()
		if apart == nil && now.view == nil {
			apart = a.starting()
		}
		if apart != nil {
			apart = fmt.Errorf("%w: %w", errApart, apart)
		}
		return n, now.view, apart
	}
	return n, nil, fmt.Errorf("ln-agent keeps no network %s on this host", network)
}

// rotated waits until all hosts of a network have the keys of an epoch, and no others. A registry
// that is away comes again.
func (a *Agent) rotated(ctx context.Context, network string, epoch int) error {
	for {
		_, v, err := a.encrypted(network)
		why := ""
		switch {
		case errors.Is(err, errApart):
			why = err.Error()
		case err != nil:
			return err
		default:
			hosts, _ := v.Hosts(network)
			behind := v.Networks[network].Unsettled(epoch, hosts)
			if len(behind) == 0 {
				return nil
			}
			why = strings.Join(behind, ", ") + " still to follow: see that ln-agent runs there"
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("epoch %d has begun, and goes on by itself; %s", epoch, why)
		case <-time.After(soonestLook):
		}
	}
}

// rotateLoop changes the keys of networks that are older than RotateEvery.
func (a *Agent) rotateLoop(ctx context.Context) error {
	if a.conf.RotateEvery == 0 {
		return nil
	}
	const part = 10
	tick := time.NewTicker(min(max(a.conf.RotateEvery/part, time.Second), rarely))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		for _, n := range a.situation().networks {
			if n.Config.Tunnel.Encrypted() && a.keyAge(n) >= a.conf.RotateEvery {
				_, err := a.rotate(ctx, n.Name)
				if errors.Is(err, overlay.ErrTaken) {
					err = nil // another host was faster
				}
				a.say("rotate "+n.Name, err, "keys are due to change, and cannot", "", "network", n.Name)
			}
		}
	}
}

// keyAge is how long this host has had its newest key of a network, by its own clock; 0: it has
// none.
func (a *Agent) keyAge(n netconf.AgentNetwork) time.Duration {
	s := keyStore{a.stateDirOf(n), n.Name}
	all, err := s.epochs()
	if err != nil || len(all) == 0 {
		return 0
	}
	info, err := os.Stat(wireguard.KeyPath(s.stateDir, s.network, all[0]))
	if err != nil {
		return 0
	}
	return time.Since(info.ModTime())
}
