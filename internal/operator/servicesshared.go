package operator

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/libnet-cni/libnet/internal/balancer"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/service"
)

// spans says whether the ln-agent of this host keeps a network: its services are those of all
// its hosts.
func (o *Operator) spans(network string) bool {
	f, err := o.NodeFile(network)
	return err == nil && len(f.Nodes) > 0
}

// isShared says whether a service is that of all hosts of its network. One that this host does
// not have yet may be.
func (o *Operator) isShared(ctx context.Context, network, name string) bool {
	found, err := o.Services().Look(ctx, network, name)
	if errors.Is(err, balancer.ErrNotFound) {
		return o.spans(network)
	}
	return err == nil && found.Shared
}

func sharedNamed(network, name string) service.Shared {
	return service.Shared{Service: service.Service{Network: network, Name: name}}
}

func (o *Operator) askService(do string, r service.Request) (service.Shared, error) {
	a, err := o.ask(request{Do: do, Service: &r})
	if err == nil && a.Service == nil {
		err = errors.New("ln-agent of this host knows no services: is it older than lnctl?")
	}
	if err != nil {
		return service.Shared{}, err
	}
	return *a.Service, nil
}

// createShared has ln-agent make a service of a network that spans hosts.
func (o *Operator) createShared(ctx context.Context, def service.Service, vip VIP) (service.Service, error) {
	if _, err := o.Services().Look(ctx, def.Network, def.Name); !errors.Is(err, balancer.ErrNotFound) {
		return def, errors.Join(err, fmt.Errorf("%w: %q on network %q", balancer.ErrExists, def.Name, def.Network))
	}
	def.VIPs = vip.Addrs
	made, err := o.askService(service.DoCreate, service.Request{Shared: service.Shared{Service: def}, Auto: vip.Auto})
	return made.Service, err
}

// updateTries bounds how often another host may be faster.
const updateTries = 20

func (o *Operator) updateShared(network, name string, fn func(*service.Service) error) error {
	var err error
	for range updateTries {
		now, readErr := o.askService(service.DoRead, service.Request{Shared: sharedNamed(network, name)})
		if readErr != nil {
			return readErr
		}
		before := now.Service
		if err := fn(&now.Service); err != nil {
			return err
		}
		now.Network, now.Name, now.Select, now.VIPs, now.Shared = before.Network, before.Name, before.Select, before.VIPs, true
		if err := now.Check(); err != nil {
			return err
		}
		_, err = o.askService(service.DoPut, service.Request{Shared: now})
		if err == nil || !strings.Contains(err.Error(), overlay.ErrTaken.Error()) {
			return err
		}
	}
	return err
}
