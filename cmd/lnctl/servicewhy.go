package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/balancer"
	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/operator"
	"github.com/libnet-cni/libnet/internal/service"
)

// whyRefused says why what is for a service, or for a port of the host that one has, is led to no
// container; empty: it is for no service.
func (s *settings) whyRefused(ctx context.Context, protocol string, dest netip.AddrPort) (why string) {
	_ = s.with(func(o *operator.Operator) error {
		all, err := o.ListServices(ctx, "")
		for _, f := range all {
			if why = notLed(f, protocol, dest); why != "" {
				break
			}
		}
		return err // doctor tells what cannot be read
	})
	return why
}

// notLed is whyRefused for one service.
func notLed(f balancer.Found, protocol string, dest netip.AddrPort) string {
	is := func(p firewall.Protocol, port uint16) bool { return p.String() == protocol && port == dest.Port() }
	has := slices.ContainsFunc(f.Ports, func(q service.Port) bool { return is(q.Protocol, q.Port) })
	vip := slices.Contains(f.VIPs, dest.Addr())
	published := slices.ContainsFunc(f.Published, func(q service.Published) bool {
		return is(q.Protocol, q.Port) && (!q.HostIP.IsValid() || q.HostIP.IsUnspecified() || q.HostIP == dest.Addr())
	})
	if !vip && !published {
		return ""
	}
	name := fmt.Sprintf("service %q of network %q", f.Name, f.Network)
	switch serving, drained := count(f, dest.Addr()); {
	case vip && !has:
		return fmt.Sprintf("%s has no port %d/%s; its ports are %s", name, dest.Port(), protocol, shownOf(f).ports())
	case serving+drained == 0:
		return fmt.Sprintf("no container is behind %s: none of the network has the name %q and an address of this family", name, f.Select)
	case serving == 0:
		return fmt.Sprintf("all containers behind %s are drained: lnctl service drain %s CONTAINER --network %s --undo", name, f.Name, f.Network)
	case vip:
		return fmt.Sprintf("the address is that of %s, for the containers of that network and the host; others need a published port (lnctl service update --publish)", name)
	}
	return fmt.Sprintf("it is for %s, whose rules led it nowhere; lnctl doctor says what is missing", name)
}

// count is how many containers of a service get connections to an address of its family, and how
// many are drained.
func count(f balancer.Found, to netip.Addr) (serving, drained int) {
	for _, b := range f.Backends {
		switch {
		case !slices.ContainsFunc(b.Addresses, func(a netip.Addr) bool { return a.Is4() == to.Is4() }):
		case f.Weight(b.ContainerID) > 0:
			serving++
		default:
			drained++
		}
	}
	return serving, drained
}
