package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/netns"
	"github.com/libnet-cni/libnet/internal/state"
)

// DefaultNetnsDir is where NewSandbox makes namespaces; what is there, ip-netns(8)
// shows by name.
const DefaultNetnsDir = "/run/netns"

// Sandbox is the network namespace of one container.
type Sandbox struct {
	c     *Controller
	id    string
	path  string
	netns life.NetnsID
	made  bool // by us, so ours to remove
}

// SandboxOption refines NewSandbox.
type SandboxOption func(*sandboxSpec)

type sandboxSpec struct {
	path    string
	allowed bool
}

// WithNetnsPath adopts the existing network namespace at path instead of
// making one. Deleting the sandbox leaves it where it is.
func WithNetnsPath(path string) SandboxOption {
	return func(s *sandboxSpec) { s.path = path }
}

// WithOwnNamespace lets the adopted namespace be the host's own, which is
// otherwise ErrOwnNamespace.
func WithOwnNamespace() SandboxOption {
	return func(s *sandboxSpec) { s.allowed = true }
}

// NewSandbox makes a network namespace for the container id, or adopts one by
// WithNetnsPath. The errors: ErrInvalidName, ErrSandboxExists, ErrOwnNamespace,
// and ErrBadNetns for a path that is no network namespace.
func (c *Controller) NewSandbox(_ context.Context, id string, opts ...SandboxOption) (_ *Sandbox, err error) {
	leave, err := c.Enter()
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	var spec sandboxSpec
	for _, o := range opts {
		o(&spec)
	}
	if err := model.ValidateName("container ID", id); err != nil {
		return nil, err
	}
	if spec.path != "" {
		return c.adoptSandbox(id, spec)
	}
	path := filepath.Join(c.netnsDir, id)
	if err := os.MkdirAll(c.netnsDir, 0o755); err != nil {
		return nil, err
	}
	if err := netns.Create(path); errors.Is(err, netlink.ErrExists) {
		return nil, fmt.Errorf("%w: %s", model.ErrSandboxExists, path)
	} else if err != nil {
		return nil, err
	}
	err = c.sandboxes.SaveSandbox(state.Sandbox{ID: id, Path: path})
	if err == nil {
		return c.Sandbox(id)
	}
	return nil, errors.Join(err, netns.Remove(path))
}

func (c *Controller) adoptSandbox(id string, spec sandboxSpec) (*Sandbox, error) {
	ns, err := life.OpenNetns(spec.path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = ns.Close() }()
	own, err := ns.IsCurrent()
	if err != nil {
		return nil, err
	}
	if own && !spec.allowed {
		return nil, fmt.Errorf("%w: %s", model.ErrOwnNamespace, spec.path)
	}
	nsID, err := ns.ID()
	return &Sandbox{c: c, id: id, path: spec.path, netns: life.NetnsID(nsID)}, err
}

// Sandbox returns the sandbox that NewSandbox made for id; ErrNotFound if it
// made none. Adopted namespaces are not remembered.
func (c *Controller) Sandbox(id string) (*Sandbox, error) {
	rec, err := c.sandboxes.LoadSandbox(id)
	if err != nil {
		return nil, notFound(err, "sandbox", id)
	}
	ns, err := life.NetnsIDOf(rec.Path)
	return &Sandbox{c: c, id: id, path: rec.Path, netns: ns, made: !rec.Adopted}, err
}

// ID returns the container's ID.
func (s *Sandbox) ID() string { return s.id }

// Path returns the path of the network namespace.
func (s *Sandbox) Path() string { return s.path }

// Delete makes every endpoint leave the sandbox and removes its namespace, if
// NewSandbox made it. Missing is success.
func (s *Sandbox) Delete(ctx context.Context) (err error) {
	leave, err := s.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	var errs []error
	err = s.c.WalkNetworks(ctx, func(n *Network) bool {
		errs = append(errs, n.WalkEndpoints(ctx, func(e *Endpoint) bool {
			if e.rec.Netns != s.path {
				return true
			}
			if err := e.Leave(ctx); !errors.Is(err, model.ErrNotJoined) { // it has left meanwhile
				errs = append(errs, err)
			}
			return true
		}))
		return true
	})
	if s.made {
		errs = append(errs, netns.Remove(s.path), s.c.sandboxes.DeleteSandbox(s.id))
	}
	return errors.Join(append(errs, err)...)
}

// notFound turns the record's absence into this package's word for it.
func notFound(err error, kind, name string) error {
	if errors.Is(err, state.ErrNotFound) {
		return fmt.Errorf("%s %q: %w", kind, name, model.ErrNotFound)
	}
	return err
}

// Keep records an adopted sandbox, so that Sandbox and Sandboxes find it. The
// error is ErrSandboxExists if the container has another one, whose namespace
// exists.
func (s *Sandbox) Keep() (err error) {
	if s.made {
		return nil
	}
	leave, err := s.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	rec := state.Sandbox{ID: s.id, Path: s.path, Adopted: true}
	err = s.c.sandboxes.CreateSandbox(rec)
	if !errors.Is(err, state.ErrExists) {
		return err
	}
	old, err := s.c.sandboxes.LoadSandbox(s.id)
	if err == nil {
		if _, gone := life.NetnsIDOf(old.Path); !errors.Is(gone, model.ErrBadNetns) {
			return fmt.Errorf("%w: container %q has %s", model.ErrSandboxExists, s.id, old.Path)
		}
	} else if !state.Missing(err) {
		return err
	}
	return s.c.sandboxes.SaveSandbox(rec)
}

// Sandboxes returns every sandbox that NewSandbox made or Keep recorded, in the
// order of their IDs, also those whose namespace is gone. Unreadable records are left out
// and reported in the error, beside the rest.
func (c *Controller) Sandboxes() (all []*Sandbox, err error) {
	leave, err := c.Enter()
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	recs, err := c.sandboxes.Sandboxes()
	for _, rec := range recs {
		all = append(all, c.sandboxOf(rec))
	}
	return all, err
}

// FindSandbox is Sandbox, also for one whose namespace is gone.
func (c *Controller) FindSandbox(id string) (_ *Sandbox, err error) {
	leave, err := c.Enter()
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	rec, err := c.sandboxes.LoadSandbox(id)
	if err != nil {
		return nil, notFound(err, "sandbox", id)
	}
	return c.sandboxOf(rec), nil
}

func (c *Controller) sandboxOf(rec state.Sandbox) *Sandbox {
	ns, _ := life.NetnsIDOf(rec.Path) // zero: it is gone
	return &Sandbox{c: c, id: rec.ID, path: rec.Path, netns: ns, made: !rec.Adopted}
}

// Forget removes the record of an adopted sandbox; missing is success.
func (s *Sandbox) Forget() error {
	if s.made {
		return nil
	}
	return s.c.sandboxes.DeleteSandbox(s.id)
}

// Holder returns what is known of the life of whatever joins the sandbox.
func (s *Sandbox) Holder() life.Holder {
	return life.Holder{ID: model.ID{ContainerID: s.id}, Boot: s.c.boot, Netns: s.path, NetnsID: s.netns, MountNS: life.MountNS()}
}

// IsHost says whether the sandbox is the network namespace of the Controller.
func (s *Sandbox) IsHost() (own bool, err error) {
	leave, err := s.c.Enter()
	if err != nil {
		return false, err
	}
	defer leave(&err)
	ns, err := life.OpenNetns(s.path)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	return ns.IsCurrent()
}

// Do calls fn in the namespace that the Controller works in.
func (c *Controller) Do(fn func() error) (err error) {
	leave, err := c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	return fn()
}

// Copy returns a handle of the same endpoint, for another goroutine.
func (e *Endpoint) Copy() *Endpoint {
	c := *e
	return &c
}

// Reload returns the endpoint as it is now; ErrNotFound if it was removed.
func (e *Endpoint) Reload() (*Endpoint, error) {
	id := e.ID()
	return e.n.Endpoint(id.ContainerID, id.IfName)
}

// MAC returns the address of the container's interface.
func (e *Endpoint) MAC() string { return e.rec.MAC }
