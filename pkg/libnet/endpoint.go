package libnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/libnet-cni/libnet/internal/driver"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
)

// Endpoint is a container's place in a network. Its fields are as the last call of Join or
// Leave by this handle left them, or as they were found.
type Endpoint struct {
	n *Network

	mu     sync.Mutex       // of what follows, never held during a call
	engine *engine.Endpoint // nil: the network is of another driver
	other  *driver.Endpoint
	joined string // container of the sandbox that this handle has joined; empty: none
}

// Address is an address of an endpoint.
type Address struct {
	Prefix  netip.Prefix // with the length of its subnet
	Gateway netip.Addr   // of the subnet; zero: none
}

// Route is a route of an endpoint.
type Route struct {
	Dst                   netip.Prefix
	Gateway               netip.Addr // zero: on-link
	MTU, AdvMSS, Priority int        // bytes, bytes, metric; 0: unset
	Table, Scope          *int       // numbers as in rtnetlink(7); nil: unset
}

// now returns what the handle knows.
func (e *Endpoint) now() (*engine.Endpoint, *driver.Endpoint) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.engine, e.other
}

func (e *Endpoint) set(mine *engine.Endpoint, other *driver.Endpoint, joined string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.engine, e.other, e.joined = mine, other, joined
}

func (e *Endpoint) id() model.ID {
	mine, other := e.now()
	if mine != nil {
		return mine.ID()
	}
	return other.ID()
}

func (e *Endpoint) addressing() model.Addressing {
	mine, other := e.now()
	if mine != nil {
		return mine.Addressing()
	}
	return other.Addressing()
}

// Name returns the endpoint's name.
func (e *Endpoint) Name() string { return e.id().ContainerID }

// ID returns a hash of the names of the endpoint and its network, of 32 hexadecimal
// digits.
func (e *Endpoint) ID() string { return model.Digest(e.id().String()) }

// Network returns the endpoint's network.
func (e *Endpoint) Network() *Network { return e.n }

// IfName returns the name of the interface in the container; empty: not known before
// Join, or the driver makes none.
func (e *Endpoint) IfName() string {
	if mine, other := e.now(); mine != nil {
		return mine.IfName()
	} else if k, err := e.n.driverOf(); err != nil || !k.capability.NoInterface {
		return other.IfName()
	}
	return ""
}

// MAC returns the address of the interface; nil: not known before Join.
func (e *Endpoint) MAC() net.HardwareAddr {
	mine, other := e.now()
	var s string
	if mine != nil {
		s = mine.MAC()
	} else {
		s = other.MAC()
	}
	mac, _ := net.ParseMAC(s) // empty: nil
	return mac
}

// Addresses returns the endpoint's addresses.
func (e *Endpoint) Addresses() (all []Address) {
	for _, a := range e.addressing().Addresses {
		all = append(all, Address(a))
	}
	return all
}

// Routes returns the endpoint's routes.
func (e *Endpoint) Routes() (all []Route) {
	for _, r := range e.addressing().Routes {
		all = append(all, Route(r))
	}
	return all
}

// Ports returns the published ports; a port that was to be a free one has its number
// once the endpoint has joined.
func (e *Endpoint) Ports() (all []PortMapping) {
	if mine, _ := e.now(); mine != nil {
		for _, m := range mine.Ports() {
			all = append(all, PortMapping(m))
		}
	}
	return all
}

// Sandbox returns the sandbox that the endpoint is in now. The errors: ErrNotJoined,
// and ErrNotFound if the endpoint was deleted.
func (e *Endpoint) Sandbox(_ context.Context) (*Sandbox, error) {
	var netns string
	var err error
	mine, other := e.now()
	if mine != nil {
		if mine, err = mine.Reload(); err == nil {
			netns = mine.Netns()
		}
	} else if other, err = other.Reload(); err == nil {
		netns = other.Netns()
	}
	if err != nil {
		return nil, err
	}
	if netns == "" {
		return nil, e.explain(fmt.Errorf("%w: %q", ErrNotJoined, e.Name()))
	}
	if other != nil {
		return e.n.c.sandboxAt(netns, other.Container())
	}
	return e.n.c.sandboxAt(netns, e.Name())
}

// explain names the sandbox of an endpoint that is not in one any more.
func (e *Endpoint) explain(err error) error {
	e.mu.Lock()
	joined := e.joined
	e.mu.Unlock()
	if joined == "" || !errors.Is(err, ErrNotJoined) {
		return oneConfigError(err)
	}
	if _, gone := e.n.c.e.FindSandbox(joined); errors.Is(gone, ErrNotFound) {
		return fmt.Errorf("sandbox %q was deleted: %w", joined, err)
	}
	return err
}

// Join makes the endpoint's interface in the sandbox. On failure the endpoint is as
// before. The errors: ErrInUse if it is in a sandbox, ErrNotFound if it or the
// sandbox was deleted, ErrExhausted, *ConfigError, *PortHeldError, and those of the
// kernel or the plugin.
func (e *Endpoint) Join(ctx context.Context, sb *Sandbox) error {
	mine, other := e.now()
	if mine != nil {
		if err := sb.forEngine(); err != nil {
			return err
		}
		mine = mine.Copy()
		if err := mine.Join(ctx, sb.engine); err != nil {
			return e.explain(err)
		}
		e.set(mine, nil, sb.ContainerID())
		return nil
	}
	if err := sb.exists(); err != nil {
		return err
	}
	to, err := sb.target()
	if err != nil {
		return err
	}
	if k, err := e.n.driverOf(); err == nil && k.capability.NoInterface {
		to.FreeIfName = nil
	}
	return e.n.with(func(d driver.Driver) error {
		after, err := other.Join(ctx, d, to)
		if err != nil {
			return err
		}
		e.set(nil, after, sb.ContainerID())
		return nil
	})
}

// Leave removes the endpoint's interface; the endpoint stays. An endpoint that is in
// no sandbox is ErrNotJoined; one that was deleted is success.
func (e *Endpoint) Leave(ctx context.Context) error {
	mine, other := e.now()
	if mine != nil {
		mine = mine.Copy()
		if err := mine.Leave(ctx); err != nil {
			return e.explain(err)
		}
		e.set(mine, nil, "")
		return nil
	}
	return e.n.with(func(d driver.Driver) error {
		after, err := other.Leave(ctx, d)
		if err != nil {
			return e.explain(err)
		}
		e.set(nil, after, "")
		return nil
	})
}

// Delete gives the endpoint's addresses back and forgets it; missing is success. An
// endpoint that is in a sandbox is ErrInUse.
func (e *Endpoint) Delete(ctx context.Context) error {
	mine, other := e.now()
	if mine != nil {
		return mine.Copy().Delete(ctx)
	}
	return other.Delete(ctx)
}

// Verify changes nothing and says what differs from what Join made: the error is then
// ErrDifferent, by a CNI plugin that plugin's own.
func (e *Endpoint) Verify(ctx context.Context) error {
	mine, other := e.now()
	if mine == nil {
		return e.n.with(func(d driver.Driver) error { return e.explain(other.Verify(ctx, d)) })
	}
	mine, err := mine.Reload()
	if err == nil {
		err = mine.Verify(ctx)
	}
	return e.explain(err)
}

// sortEndpoints puts endpoints into the order of their networks, names and interfaces.
func sortEndpoints(all []*Endpoint) {
	slices.SortFunc(all, func(a, b *Endpoint) int {
		return slices.Compare([]string{a.n.Name(), a.Name(), a.id().IfName}, []string{b.n.Name(), b.Name(), b.id().IfName})
	})
}
