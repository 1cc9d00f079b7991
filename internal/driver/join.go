package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
)

// Target is what an endpoint joins.
type Target struct {
	Container string
	Life      Life
	Host      bool // it is the host's own namespace
	// FreeIfName chooses the interface's name where the endpoint has none.
	FreeIfName func() (string, error)
}

// own keeps every other caller from the endpoint until the lock is released, and
// reads its record again.
func (e *Endpoint) own(ctx context.Context) (*Endpoint, *state.Held, error) {
	held, err := e.s.dir.OwnForChild(ctx, e.rec.Network, e.rec.ContainerID, e.rec.IfName, state.Create)
	if err != nil {
		return nil, nil, err
	}
	now, err := e.Reload()
	if err != nil {
		held.Release()
		return nil, nil, errors.Join(err, e.s.tidy(ctx, e.rec.Network))
	}
	return now, held, nil
}

// tidy removes what a lock made of a network that is gone.
func (s *Networks) tidy(ctx context.Context, network string) error {
	if _, err := s.Load(network); !errors.Is(err, model.ErrNotFound) {
		return nil
	}
	err := s.dir.Alone(ctx, network, func() error { return s.dir.DeleteNetwork(network) })
	if errors.Is(err, state.ErrInUse) {
		return nil // another one came meanwhile, and does it
	}
	return err
}

// Join has the driver attach the container. The record is written before anything is made,
// so that all of it can be removed after this process was killed at any point. The error
// is model.ErrEndpointJoined for an endpoint that has joined already.
func (e *Endpoint) Join(ctx context.Context, d Driver, to Target) (*Endpoint, error) {
	e, held, err := e.own(ctx)
	if err != nil {
		return nil, err
	}
	defer held.Release()
	if e.interrupted() {
		if err := e.detach(ctx, d, held); err != nil {
			return nil, err
		}
	}
	if e.rec.Netns != "" {
		return nil, fmt.Errorf("%w: %s", model.ErrEndpointJoined, e.rec.Netns)
	}
	if err := e.intend(to); err != nil {
		return nil, err
	}
	if err := e.attach(ctx, d, held); err != nil {
		return nil, errors.Join(err, e.detach(context.WithoutCancel(ctx), d, held))
	}
	return e, nil
}

// intend records what is about to be made.
func (e *Endpoint) intend(to Target) error {
	s, err := e.get()
	if err != nil {
		return err
	}
	if e.rec.NextName && to.FreeIfName != nil {
		if e.rec.LinkName, err = to.FreeIfName(); err != nil {
			return err
		}
	}
	if s.Conf, err = WithAsked(e.net.Conf, s.Asked); err != nil {
		return err
	}
	s.Container, s.Host, s.Result = to.Container, to.Host, nil
	e.rec.Phase, e.rec.Boot, e.rec.Netns, e.rec.NetnsID, e.rec.MountNS = state.PhaseIntent, to.Life.Boot, to.Life.Netns, to.Life.NetnsID, to.Life.MountNS
	if err := e.put(s); err != nil {
		return err
	}
	return e.save()
}

func (e *Endpoint) attach(ctx context.Context, d Driver, held *state.Held) error {
	a, err := e.attachment(held)
	if err != nil {
		return err
	}
	got, err := d.Attach(ctx, a)
	if err != nil {
		return err
	}
	s, err := e.get()
	if err != nil {
		return err
	}
	s.Result = got.Raw
	e.rec.Phase, e.rec.MAC, e.rec.DNS = state.PhaseReady, got.MAC, state.DNS(got.DNS)
	e.rec.Addresses, e.rec.Routes = nil, nil
	for _, addr := range got.Addresses {
		e.rec.Addresses = append(e.rec.Addresses, state.Address(addr))
	}
	for _, r := range got.Routes {
		e.rec.Routes = append(e.rec.Routes, state.Route(r))
	}
	return errors.Join(e.put(s), e.save())
}

// attachment is what the driver is told. Of a container that is gone the path says
// nothing: it may be another one's by now.
func (e *Endpoint) attachment(held *state.Held) (Attachment, error) {
	s, err := e.get()
	a := Attachment{
		Network: e.net, ContainerID: e.rec.ContainerID, IfName: e.rec.Inside(), Netns: e.rec.Netns,
		Host: s.Host, Asked: s.Asked, Conf: s.Conf, Result: s.Result,
	}
	if held != nil {
		a.Lock = held.File()
	}
	if e.s.dead(e.life()) {
		a.Netns = ""
	}
	return a, err
}

// detach has the driver remove the attachment, and then forgets it. The endpoint
// stays.
func (e *Endpoint) detach(ctx context.Context, d Driver, held *state.Held) error {
	a, err := e.attachment(held)
	if err != nil {
		return err
	}
	if e.rec.Phase != state.PhaseIntent { // a killed Leave is an interrupted one
		e.rec.Phase = state.PhaseIntent
		if err := e.save(); err != nil {
			return err
		}
	}
	if err := d.Detach(ctx, a); err != nil {
		return err
	}
	s := saved{Asked: a.Asked}
	e.rec = state.Endpoint{Network: e.rec.Network, ContainerID: e.rec.ContainerID, IfName: e.rec.IfName, NextName: e.rec.NextName, Phase: state.PhaseLeased}
	return errors.Join(e.put(s), e.save())
}

// Leave has the driver detach the container. One that has joined nothing is
// model.ErrNotJoined; an endpoint that is gone is success.
func (e *Endpoint) Leave(ctx context.Context, d Driver) (*Endpoint, error) {
	now, held, err := e.own(ctx)
	if errors.Is(err, model.ErrNotFound) {
		return e, nil
	}
	if err != nil {
		return nil, err
	}
	defer held.Release()
	if now.rec.Netns == "" {
		return nil, fmt.Errorf("%w: %q", model.ErrNotJoined, e.rec.ContainerID)
	}
	return now, now.detach(ctx, d, held)
}

// Delete forgets an endpoint; missing is success. One that has joined a sandbox is
// model.ErrEndpointJoined.
func (e *Endpoint) Delete(ctx context.Context) error {
	now, held, err := e.own(ctx)
	if errors.Is(err, model.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer held.Release()
	if now.rec.Netns != "" {
		return fmt.Errorf("%w: %q in %s", model.ErrEndpointJoined, now.rec.ContainerID, now.rec.Netns)
	}
	return now.forget()
}

func (e *Endpoint) forget() error {
	return e.s.dir.DeleteEndpoint(e.rec.Network, e.rec.ContainerID, e.rec.IfName)
}

// Verify has the driver compare what the container has with what Join made.
func (e *Endpoint) Verify(ctx context.Context, d Driver) error {
	now, held, err := e.own(ctx)
	if err != nil {
		return err
	}
	defer held.Release()
	switch {
	case now.rec.Netns == "":
		return fmt.Errorf("%w: %q", model.ErrNotJoined, e.rec.ContainerID)
	case now.interrupted():
		return fmt.Errorf("%w: the process that attached %q was interrupted", model.ErrDifferent, e.rec.ContainerID)
	case now.s.dead(now.life()):
		return fmt.Errorf("%w: the container of %q is gone", model.ErrDifferent, e.rec.ContainerID)
	}
	a, err := now.attachment(held)
	if err != nil {
		return err
	}
	return d.Verify(ctx, a)
}

// Collect removes every endpoint of the network that keep says no to, and what the
// driver has of attachments that are not recorded. keep is asked once no other
// caller is at work on the endpoint; of one whose container is gone, or whose Join
// or Leave was interrupted, it is told that it is useless. It goes on after errors.
func (s *Networks) Collect(ctx context.Context, n Network, d Driver, keep func(e *Endpoint, useless bool) bool) error {
	all, err := s.Endpoints(n)
	errs := []error{err}
	for _, e := range all {
		errs = append(errs, s.collectOne(ctx, e, d, keep))
	}
	return errors.Join(append(errs, s.collectRest(ctx, n, d))...)
}

func (s *Networks) collectOne(ctx context.Context, e *Endpoint, d Driver, keep func(e *Endpoint, useless bool) bool) error {
	now, held, err := e.own(ctx)
	if errors.Is(err, model.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer held.Release()
	joined := now.rec.Netns != ""
	if keep(now, joined && (now.interrupted() || s.dead(now.life()))) {
		return nil
	}
	if joined {
		if err := now.detach(ctx, d, held); err != nil {
			return err
		}
	}
	return now.forget()
}

func (s *Networks) collectRest(ctx context.Context, n Network, d Driver) error {
	held, err := s.dir.QuietForChild(ctx, n.Name)
	if err != nil {
		return err
	}
	defer held.Release()
	all, err := s.Endpoints(n)
	if err != nil {
		return err // what is not known would be removed
	}
	var known []Attachment
	for _, e := range all {
		if e.rec.Netns != "" {
			known = append(known, Attachment{ContainerID: e.rec.ContainerID, IfName: e.rec.Inside()})
		}
	}
	return d.Collect(ctx, n, known, held.File())
}

// WithAsked is a plugin's configuration with what was asked for one attachment.
func WithAsked(conf json.RawMessage, asked Asked) (json.RawMessage, error) {
	if conf == nil || len(asked) == 0 {
		return conf, nil
	}
	var all map[string]any
	if err := json.Unmarshal(conf, &all); err != nil {
		return nil, err
	}
	runtime, _ := all["runtimeConfig"].(map[string]any)
	if runtime == nil {
		runtime = map[string]any{}
	}
	maps.Copy(runtime, asked)
	all["runtimeConfig"] = runtime
	return json.Marshal(all)
}
