package engine

import (
	"context"
	"errors"
	"strconv"

	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/netlink"
)

// WithNextIfName has Join name the interface: the first of eth0, eth1 and so on
// that is free in the sandbox. WithIfName then only tells this endpoint from others
// of the same name.
func WithNextIfName() EndpointOption {
	return func(s *endpointSpec) { s.nextName = true }
}

// IfName returns the name of the interface in the container; before an endpoint of
// WithNextIfName has joined, empty.
func (e *Endpoint) IfName() string {
	if e.rec.NextName {
		return e.rec.LinkName
	}
	return e.rec.Inside()
}

// joinByNextName is join under the first free name. Another endpoint may get that
// name first, of whichever network: then it takes the next one.
func (e *Endpoint) joinByNextName(ctx context.Context, sb *Sandbox) error {
	for {
		name, err := sb.FreeIfName()
		if err != nil {
			return err
		}
		e.rec.LinkName = name
		err = e.join(ctx, sb)
		if err == nil || !errors.Is(err, netlink.ErrExists) {
			return err
		}
		if free, freeErr := sb.FreeIfName(); freeErr != nil || free == name {
			return errors.Join(err, freeErr) // it is something else that exists
		}
	}
}

// AttachNext is Attach under the first free name, or the one that the attachment
// has already.
func (n *Network) AttachNext(ctx context.Context, sb *Sandbox, opts ...EndpointOption) (_ *Endpoint, err error) {
	leave, err := n.c.Enter()
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	for {
		name, err := n.nameIn(ctx, sb)
		if err != nil {
			return nil, err
		}
		e, err := n.Attach(ctx, sb, append(opts[:len(opts):len(opts)], WithIfName(name))...)
		if err == nil || !errors.Is(err, netlink.ErrExists) {
			return e, err
		}
		if next, nextErr := n.nameIn(ctx, sb); nextErr != nil || next == name {
			return nil, errors.Join(err, nextErr) // it is something else that exists
		}
	}
}

// nameIn is the name that the sandbox's interface in the network has, or gets next.
func (n *Network) nameIn(ctx context.Context, sb *Sandbox) (name string, err error) {
	err = n.WalkEndpoints(ctx, func(e *Endpoint) bool {
		if e.rec.ContainerID == sb.id && e.rec.Netns == sb.path {
			name = e.rec.IfName
		}
		return name == ""
	})
	if name != "" || err != nil {
		return name, err
	}
	return sb.FreeIfName()
}

// FreeIfName returns the first of eth0, eth1 and so on that the sandbox has no
// interface of.
func (s *Sandbox) FreeIfName() (_ string, err error) {
	leave, err := s.c.Enter()
	if err != nil {
		return "", err
	}
	defer leave(&err)
	ns, err := life.OpenNetns(s.path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	for i := 0; ; i++ {
		name := "eth" + strconv.Itoa(i)
		if has, err := netlink.HasDevice(ns, name); err != nil || !has {
			return name, err
		}
	}
}
