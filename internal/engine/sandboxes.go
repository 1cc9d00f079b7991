package engine

import (
	"errors"
	"fmt"

	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
)

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
// order of their IDs, also those whose namespace is gone. What cannot be read is
// left out and reported in the error, beside the rest.
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
