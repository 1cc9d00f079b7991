// Package shortcut has the packets of attachments go the fast path, by their records: the fast
// path itself is in internal/fastpath.
package shortcut

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/libnet-cni/libnet/internal/bpf"
	"github.com/libnet-cni/libnet/internal/fastpath"
	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/state"
)

// path is a *fastpath.Path.
type path interface {
	Put(context.Context, fastpath.Link) error
	Remove(ctx context.Context, index int) error
	Verify(context.Context, fastpath.Link) error
	Sweep(context.Context, func(index int) (bool, error)) error
}

// links are those of the host.
type links interface {
	// VXLAN reads a VXLAN device, and says which link its packets leave by, or 0;
	// netlink.ErrNotFound.
	VXLAN(name string) (index, uplink int, x netlink.VXLAN, err error)
	// HasLink says whether there is a link of that index.
	HasLink(index int) (bool, error)
}

// Shortcuts are those of this host; nil: none.
type Shortcuts struct {
	Path  path
	Links links
}

// liberal is the sysctl that has conntrack take the packet of a TCP connection that comes after
// others which it has not seen. Without it each connection that ends would stay in its table
// for days, and other firewalls that drop what is invalid would end living ones.
const liberal = "net/netfilter/nf_conntrack_tcp_be_liberal"

// Put has the packets of an attachment go the fast path, and notes it in the record. The error
// wraps fastpath's ErrUnsupported where the host cannot. What it made before an error is for
// Remove.
func (s *Shortcuts) Put(ctx context.Context, rec *state.Endpoint, index int, tunnel string) error {
	rec.Fast = index
	// First, as it says whether the kernel can: else the host keeps its setting.
	if err := s.Path.Put(ctx, linkOf(rec, tunnel)); err != nil {
		return err
	}
	err := host.SetSysctl(liberal, "1")
	if errors.Is(err, host.ErrReadOnly) {
		err = fmt.Errorf("%w: %w", bpf.ErrUnsupported, err)
	}
	if err != nil && !errors.Is(err, netlink.ErrNotFound) { // no conntrack
		return err
	}
	return s.PutTunnel(ctx, rec.Bridge, tunnel)
}

// linkOf is the host's end of the attachment's veth.
func linkOf(rec *state.Endpoint, tunnel string) fastpath.Link {
	l := fastpath.Link{Index: rec.Fast, Network: rec.Bridge}
	for _, have := range rec.Links {
		mac, _ := net.ParseMAC(have.MAC)
		switch {
		case have.Netns != "":
			l.MAC = mac
		case have.Name == rec.Bridge && tunnel == "":
			l.Gateway = mac
		}
	}
	return l
}

// PutTunnel does the same for a network's VXLAN device; empty: there is none.
func (s *Shortcuts) PutTunnel(ctx context.Context, bridge, name string) error {
	if name == "" {
		return nil
	}
	l, err := s.tunnelOf(bridge, name)
	if err != nil {
		return err
	}
	if s.Path.Verify(ctx, l) == nil {
		return nil
	}
	return s.Path.Put(ctx, l)
}

// tunnelOf is a network's VXLAN device. What goes past it has headers of IPv4.
func (s *Shortcuts) tunnelOf(bridge, name string) (fastpath.Link, error) {
	index, uplink, x, err := s.Links.VXLAN(name)
	l := fastpath.Link{Index: index, Network: bridge}
	if x.Local.Is4() {
		l.Tunnel = &fastpath.Tunnel{VNI: x.VNI, Port: x.Port, Uplink: uplink}
	}
	return l, err
}

// Remove has the packets of an attachment go the slow way, before its link goes; missing is
// success.
func (s *Shortcuts) Remove(ctx context.Context, rec *state.Endpoint) error {
	if s == nil || rec.Fast == 0 {
		return nil
	}
	return s.Path.Remove(ctx, rec.Fast)
}

// Verify says what differs from what Put made of an attachment; such an error is ErrDifferent
// of netlink. What an earlier release put is fine.
func (s *Shortcuts) Verify(ctx context.Context, rec *state.Endpoint, tunnel string) error {
	err := s.compare(ctx, rec, tunnel)
	switch {
	case errors.Is(err, fastpath.ErrDifferent):
		return fmt.Errorf("%w: %w", netlink.ErrDifferent, err)
	case errors.Is(err, fastpath.ErrEarlier):
		return nil
	}
	return err
}

func (s *Shortcuts) compare(ctx context.Context, rec *state.Endpoint, tunnel string) error {
	if s == nil || rec.Fast == 0 {
		return nil
	}
	errs := []error{s.Path.Verify(ctx, linkOf(rec, tunnel))}
	if tunnel != "" {
		l, err := s.tunnelOf(rec.Bridge, tunnel)
		if err == nil {
			err = s.Path.Verify(ctx, l)
		}
		if !errors.Is(err, netlink.ErrNotFound) { // else it is told of already
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Mend puts back what of an attachment is missing.
func (s *Shortcuts) Mend(ctx context.Context, rec *state.Endpoint, tunnel string) (mended bool, err error) {
	err = s.compare(ctx, rec, tunnel)
	if !errors.Is(err, fastpath.ErrDifferent) && !errors.Is(err, fastpath.ErrEarlier) {
		return false, err
	}
	err = s.Put(ctx, rec, rec.Fast, tunnel)
	if errors.Is(err, netlink.ErrNotFound) {
		return false, nil // the link is gone: that is for DEL, and CHECK tells
	}
	return err == nil, err
}

// Changed has the next packet of each flow go the slow way.
func (s *Shortcuts) Changed() error {
	if s == nil {
		return nil
	}
	return fastpath.Changed()
}

// Sweep forgets links that are gone.
func (s *Shortcuts) Sweep(ctx context.Context) error {
	if s == nil {
		return nil
	}
	return s.Path.Sweep(ctx, s.Links.HasLink)
}

// Unsupported says that an error is about what this host cannot do.
func Unsupported(err error) bool {
	return errors.Is(err, bpf.ErrUnsupported) || errors.Is(err, netlink.ErrUnsupported)
}
