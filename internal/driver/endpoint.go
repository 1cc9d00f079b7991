package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
)

// Endpoint is one endpoint of a network. It does not change: each call that
// changes the endpoint returns it anew.
type Endpoint struct {
	s   *Networks
	net Network
	rec state.Endpoint
}

// saved is what the record keeps for the driver.
type saved struct {
	Asked     Asked           `json:",omitempty"`
	Container string          `json:",omitempty"` // of the sandbox
	Host      bool            `json:",omitempty"`
	Conf      json.RawMessage `json:",omitempty"` // as Attach used it
	Result    json.RawMessage `json:",omitempty"`
}

// Spec is what a new endpoint is to be.
type Spec struct {
	Name string
	// IfName is the interface's; empty: Join takes the next one that is free.
	IfName string
	Asked  Asked
}

// firstIfName is what tells endpoints of one name from each other when none of
// their interfaces is named.
const firstIfName = "eth0"

// CreateEndpoint records an endpoint. Addresses and interface come with Join. The
// errors: model.ErrInvalidName, ErrEndpointExists, and ErrNotFound for a network
// that was deleted meanwhile.
func (s *Networks) CreateEndpoint(ctx context.Context, n Network, spec Spec) (*Endpoint, error) {
	id := model.ID{Network: n.Name, ContainerID: spec.Name, IfName: spec.IfName}
	if spec.IfName == "" {
		id.IfName = firstIfName
	}
	if err := id.Validate(); err != nil {
		return nil, err
	}
	release, err := s.dir.Own(ctx, n.Name, id.ContainerID, id.IfName, state.OnlyExisting)
	if err != nil {
		return nil, err
	}
	defer release()
	if _, err := s.Load(n.Name); err != nil {
		return nil, err
	}
	e := &Endpoint{s: s, net: n, rec: state.Endpoint{
		Network: n.Name, ContainerID: id.ContainerID, IfName: id.IfName, NextName: spec.IfName == "", Phase: state.PhaseLeased,
	}}
	if err := e.put(saved{Asked: spec.Asked}); err != nil {
		return nil, err
	}
	err = s.dir.CreateEndpoint(e.rec)
	if errors.Is(err, state.ErrExists) {
		return nil, fmt.Errorf("%w: %q on network %q", model.ErrEndpointExists, spec.Name, n.Name)
	}
	return e, err
}

// Endpoints returns every endpoint of the network. Unreadable records are left out and
// reported in the error, beside the rest.
func (s *Networks) Endpoints(n Network) ([]*Endpoint, error) {
	recs, err := s.dir.Endpoints(n.Name)
	var all []*Endpoint
	for _, rec := range recs {
		all = append(all, &Endpoint{s: s, net: n, rec: rec})
	}
	return all, err
}

// Reload returns the endpoint as it is now; model.ErrNotFound if it was removed.
func (e *Endpoint) Reload() (*Endpoint, error) {
	rec, err := e.s.dir.LoadEndpoint(e.rec.Network, e.rec.ContainerID, e.rec.IfName)
	if errors.Is(err, state.ErrNotFound) {
		return nil, fmt.Errorf("endpoint %q: %w", e.rec.ContainerID, model.ErrNotFound)
	}
	return &Endpoint{s: e.s, net: e.net, rec: rec}, err
}

// Network returns the endpoint's network.
func (e *Endpoint) Network() Network { return e.net }

// ID returns the endpoint's identity.
func (e *Endpoint) ID() model.ID {
	return model.ID{Network: e.rec.Network, ContainerID: e.rec.ContainerID, IfName: e.rec.IfName}
}

// IfName returns the name of the interface in the container; empty: not known yet.
func (e *Endpoint) IfName() string {
	if e.rec.NextName {
		return e.rec.LinkName
	}
	return e.rec.IfName
}

// MAC returns the address of the container's interface; empty: not known yet.
func (e *Endpoint) MAC() string { return e.rec.MAC }

// Netns returns the path of the network namespace that the endpoint has joined;
// empty: none.
func (e *Endpoint) Netns() string { return e.rec.Netns }

// Addressing returns what the driver gave.
func (e *Endpoint) Addressing() model.Addressing {
	a := model.Addressing{DNS: model.DNS(e.rec.DNS)}
	for _, addr := range e.rec.Addresses {
		a.Addresses = append(a.Addresses, model.Address(addr))
	}
	for _, r := range e.rec.Routes {
		a.Routes = append(a.Routes, model.Route(r))
	}
	return a
}

// Container returns the container of the sandbox that the endpoint has joined; empty:
// none.
func (e *Endpoint) Container() string {
	s, _ := e.get() // what cannot be read names none
	return s.Container
}

func (e *Endpoint) get() (saved, error) {
	var s saved
	if err := json.Unmarshal(e.rec.Config, &s); err != nil {
		return s, fmt.Errorf("record of endpoint %q on network %q: %w", e.rec.ContainerID, e.rec.Network, err)
	}
	return s, nil
}

func (e *Endpoint) put(s saved) (err error) {
	e.rec.Config, err = json.Marshal(s)
	return err
}

func (e *Endpoint) save() error { return e.s.dir.SaveEndpoint(e.rec) }

// interrupted says that the process that attached or detached it did not come to
// the end. It is asked by the owner of the attachment.
func (e *Endpoint) interrupted() bool { return e.rec.Netns != "" && e.rec.Phase != state.PhaseReady }

// Dead says whether the container that it has joined is provably gone.
func (e *Endpoint) Dead() bool { return e.rec.Netns != "" && e.s.dead(e.life()) }

func (e *Endpoint) life() Life {
	return Life{Boot: e.rec.Boot, Netns: e.rec.Netns, NetnsID: e.rec.NetnsID, MountNS: e.rec.MountNS}
}
