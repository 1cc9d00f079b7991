package libnet

import (
	"context"
	"errors"
	"fmt"

	"github.com/libnet-cni/libnet/internal/driver"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
)

// Sandbox is the network namespace of one container.
type Sandbox struct {
	c      *Controller
	engine *engine.Sandbox
	// unrecorded says that a runtime attached the container: NewSandbox was not
	// called for it.
	unrecorded bool
}

// SandboxOption refines NewSandbox.
type SandboxOption func(*sandboxSpec)

type sandboxSpec struct{ engine []engine.SandboxOption }

// hostNetns is the namespace of the thread that asks.
const hostNetns = "/proc/thread-self/ns/net"

// WithNetnsPath adopts the network namespace at path instead of making one. Deleting
// the sandbox leaves the namespace.
func WithNetnsPath(path string) SandboxOption {
	return func(s *sandboxSpec) { s.engine = append(s.engine, engine.WithNetnsPath(path)) }
}

// WithHostNetns adopts the host's own network namespace, for a network of the driver
// "host".
func WithHostNetns() SandboxOption {
	return func(s *sandboxSpec) {
		s.engine = append(s.engine, engine.WithNetnsPath(hostNetns), engine.WithOwnNamespace())
	}
}

// NewSandbox makes a network namespace for a container, or adopts one. The errors:
// ErrInvalidName, ErrExists if the container has a sandbox whose namespace is there,
// and those for a path that is no network namespace, or is the host's own.
func (c *Controller) NewSandbox(ctx context.Context, containerID string, opts ...SandboxOption) (*Sandbox, error) {
	var s sandboxSpec
	for _, o := range opts {
		o(&s)
	}
	if old, err := c.e.FindSandbox(containerID); err == nil && old.Holder().NetnsID != (life.NetnsID{}) {
		return nil, fmt.Errorf("%w: container %q has %s", model.ErrSandboxExists, containerID, old.Path())
	}
	sb, err := c.e.NewSandbox(ctx, containerID, s.engine...)
	if err == nil {
		err = sb.Keep()
	}
	if err != nil {
		return nil, err
	}
	return &Sandbox{c: c, engine: sb}, nil
}

// Sandbox returns the sandbox of that container; ErrNotFound if there is none.
func (c *Controller) Sandbox(_ context.Context, containerID string) (*Sandbox, error) {
	sb, err := c.e.FindSandbox(containerID)
	if err != nil {
		return nil, err
	}
	return &Sandbox{c: c, engine: sb}, nil
}

// Sandboxes returns every sandbox in the order of the containers' IDs, also those
// whose namespace is gone. Sandboxes that cannot be read are left out and reported in
// the error, beside the rest.
func (c *Controller) Sandboxes(_ context.Context) ([]*Sandbox, error) {
	found, err := c.e.Sandboxes()
	var all []*Sandbox
	for _, sb := range found {
		all = append(all, &Sandbox{c: c, engine: sb})
	}
	return all, err
}

// WalkSandboxes calls fn for each sandbox until it says false.
func (c *Controller) WalkSandboxes(ctx context.Context, fn func(*Sandbox) bool) error {
	all, err := c.Sandboxes(ctx)
	for _, sb := range all {
		if !fn(sb) {
			break
		}
	}
	return err
}

// DestroySandbox is Delete of the container's sandbox; missing is success.
func (c *Controller) DestroySandbox(ctx context.Context, containerID string) error {
	sb, err := c.Sandbox(ctx, containerID)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return sb.Delete(ctx)
}

// sandboxAt returns the sandbox with this namespace, or one for the container that a
// runtime attached there.
func (c *Controller) sandboxAt(netns, containerID string) (*Sandbox, error) {
	all, err := c.e.Sandboxes()
	for _, sb := range all {
		if sb.Path() == netns && (netns != hostNetns || sb.ID() == containerID) {
			return &Sandbox{c: c, engine: sb}, nil
		}
	}
	if err != nil {
		return nil, err
	}
	sb, err := c.e.NewSandbox(context.Background(), containerID, engine.WithNetnsPath(netns), engine.WithOwnNamespace())
	if err != nil {
		return nil, err
	}
	return &Sandbox{c: c, engine: sb, unrecorded: true}, nil
}

// exists is ErrNotFound for a sandbox that was deleted since the handle was made.
func (s *Sandbox) exists() error {
	if s.unrecorded {
		return nil
	}
	now, err := s.c.e.FindSandbox(s.ContainerID())
	if errors.Is(err, ErrNotFound) || err == nil && now.Path() != s.Path() {
		return fmt.Errorf("sandbox %q was deleted: %w", s.ContainerID(), ErrNotFound)
	}
	return err
}

// forEngine is a *ConfigError for a sandbox that a bridge cannot connect.
func (s *Sandbox) forEngine() error {
	if s.Path() == hostNetns {
		return model.BadConfig("sandbox", s.ContainerID(), `is the host itself, which only a network of the driver "host" takes`)
	}
	return s.exists()
}

// target is what a driver's endpoint joins.
func (s *Sandbox) target() (driver.Target, error) {
	own, err := s.engine.IsHost()
	if err != nil {
		return driver.Target{}, err
	}
	h := s.engine.Holder()
	t := driver.Target{Container: s.ContainerID(), Host: own, FreeIfName: s.engine.FreeIfName}
	t.Life.Boot, t.Life.Netns, t.Life.MountNS = h.Boot, h.Netns, h.MountNS
	t.Life.NetnsID.Dev, t.Life.NetnsID.Ino, t.Life.NetnsID.Cookie = h.NetnsID.Dev, h.NetnsID.Ino, h.NetnsID.Cookie
	return t, nil
}

// ContainerID returns the container's ID.
func (s *Sandbox) ContainerID() string { return s.engine.ID() }

// Path returns the path of the network namespace.
func (s *Sandbox) Path() string { return s.engine.Path() }

// Endpoints returns every endpoint that is in the sandbox, in the order of the names
// of their networks. Endpoints that cannot be read are left out and reported in the
// error, beside the rest.
func (s *Sandbox) Endpoints(ctx context.Context) ([]*Endpoint, error) {
	var all []*Endpoint
	var errs []error
	err := s.c.WalkNetworks(ctx, func(n *Network) bool {
		endpoints, err := n.Endpoints(ctx)
		errs = append(errs, err)
		for _, e := range endpoints {
			if e.isIn(s) {
				all = append(all, e)
			}
		}
		return true
	})
	sortEndpoints(all)
	return all, errors.Join(append(errs, err)...)
}

// isIn says whether the endpoint is in the sandbox. Of the host's namespace there are
// many sandboxes, and one path.
func (e *Endpoint) isIn(s *Sandbox) bool {
	mine, other := e.now()
	if mine != nil {
		return mine.Netns() == s.Path()
	}
	return other.Netns() == s.Path() && other.Container() == s.ContainerID()
}

// Delete makes every endpoint leave the sandbox and removes its namespace, if
// NewSandbox made it. The endpoints stay. Missing is success.
func (s *Sandbox) Delete(ctx context.Context) error {
	all, err := s.Endpoints(ctx)
	errs := []error{err}
	for _, e := range all {
		if e.engine == nil { // the engine's leave with the sandbox
			if err := e.Leave(ctx); !errors.Is(err, ErrNotJoined) { // it has left meanwhile
				errs = append(errs, err)
			}
		}
	}
	errs = append(errs, s.engine.Delete(ctx))
	if s.unrecorded || errors.Join(errs...) != nil {
		return errors.Join(errs...) // the record finds it again
	}
	return s.engine.Forget()
}
