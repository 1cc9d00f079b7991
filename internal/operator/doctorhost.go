package operator

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
)

// checkSubnets finds what of the host takes packets for containers elsewhere: addresses
// of other interfaces and routes that came after the network.
func (s survey) checkSubnets() []Finding {
	const about = "subnets"
	var all []Finding
	for _, n := range s.networks {
		if len(s.endpoints[n]) == 0 || !n.Config().HasGateway() || n.Config().Tunnel.Used() {
			continue
		}
		for _, use := range SubnetsOf(n, s.endpoints[n]) {
			subnet := use.Subnet
			found, err := s.o.kernel.Occupants(n.Config().Bridge, model.OwnerPrefix, subnet)
			if err != nil {
				return []Finding{{about, oneLine(err), "try again"}}
			}
			for _, o := range found {
				if takes(n, o, subnet) {
					all = append(all, Finding{about, fmt.Sprintf("network %q: %s is in its subnet %s: what is sent to containers there goes elsewhere", n.Name(), o, subnet), wayOut(o)})
				}
			}
		}
	}
	if len(all) == 0 {
		return []Finding{{About: about, Found: "nothing else of the host is in those of networks with containers"}}
	}
	return all
}

// takes says that an occupant of a network's subnet is in the way of its containers.
func takes(n *engine.Network, o host.Occupant, subnet netip.Prefix) bool {
	pool, is := n.IPAM().(*address.Pool)
	elsewhere := is && o.Route.IsValid() && o.Route.Bits() > subnet.Bits() && !pool.Gives(o.Route)
	return !elsewhere && model.NetworkOf(o.Alias) != n.Name()
}

// wayOut says what to do about an occupant.
func wayOut(o host.Occupant) string {
	switch network := model.NetworkOf(o.Alias); {
	case network != "":
		return fmt.Sprintf("give network %q another subnet, and restart its containers", network)
	case o.Addr.IsValid():
		return fmt.Sprintf("ip addr del %s dev %s, or give the network another subnet and restart its containers", o.Addr, o.Device)
	case o.Via.IsValid():
		return fmt.Sprintf("ip route del %s via %s dev %s, or give the network another subnet and restart its containers", o.Route, o.Via, o.Device)
	}
	return fmt.Sprintf("ip route del %s, or give the network another subnet and restart its containers", o.Route)
}

// checkIPv6 finds bridges of networks with IPv6 on which IPv6 is off: with it the kernel
// takes away all addresses, and refuses new ones.
func (s survey) checkIPv6() []Finding {
	var all []Finding
	for _, n := range s.networks {
		bridge := gatewayInterface(n)
		has6 := slices.ContainsFunc(s.endpoints[n], func(e *engine.Endpoint) bool { _, v6 := e.Addressing().Families(); return v6 })
		if off, err := host.GetSysctl("net/ipv6/conf/" + bridge + "/disable_ipv6"); !has6 || !n.Config().HasGateway() || err != nil || off != "1" {
			continue
		}
		all = append(all, Finding{"bridges", fmt.Sprintf("network %q has IPv6, and it is off on %s (disable_ipv6 is 1)", n.Name(), bridge),
			fmt.Sprintf("sysctl -w net.ipv6.conf.%s.disable_ipv6=0, and look for what set it; then lnctl repair puts the addresses back", bridge)})
	}
	return all
}

// checkPorts finds published ports on which a program of the host listens, too: what
// comes from outside goes to the container.
func (s survey) checkPorts() []Finding {
	var all []Finding
	for _, n := range s.networks {
		for _, e := range s.endpoints[n] {
			said := map[string]bool{}
			for _, p := range s.o.Inspect(e).Ports {
				port, used := s.listened(p)
				if key := p.Protocol + " " + strconv.Itoa(port); used && !said[key] {
					said[key] = true
					all = append(all, Finding{"ports", fmt.Sprintf("%s of the host is published for %s in network %q, and a program of the host listens there, too: it gets nothing from outside", key, e.ID().ContainerID, n.Name()),
						fmt.Sprintf("stop that program (ss -lnp 'sport = :%d' names it), or publish another port", port)})
				}
			}
		}
	}
	return all
}

// mostPorts bounds how many ports of a range are looked at.
const mostPorts = 64

// listened returns the first port of a published one on which a program listens.
func (s survey) listened(p PublishedPort) (port int, used bool) {
	if p.HostPort == 0 || p.Standby {
		return 0, false
	}
	for port := p.HostPort; port <= min(max(p.HostPort, p.HostPortEnd), p.HostPort+mostPorts); port++ {
		if s.o.kernel.PortInUse(p.Protocol, p.Host, uint16(port)) {
			return port, true
		}
	}
	return 0, false
}

// checkMTU finds links that lose large packets: of a container whose end takes more than
// the host's end, its bridge, or the way out of this host.
func (s survey) checkMTU(ctx context.Context) []Finding {
	const about = "MTU"
	links, err := life.LinksOf(ctx, s.o.kernel, model.OwnerPrefix)
	ns, nsErr := s.o.kernel.Namespaces()
	uplink, upErr := s.o.kernel.UplinkMTU()
	if errors.Is(upErr, netlink.ErrNotFound) {
		upErr = nil
	}
	if err := errors.Join(err, nsErr, upErr); err != nil {
		return []Finding{{about, oneLine(err), "try again"}}
	}
	m := mtus{uplink: uplink, said: map[string]bool{}}
	for _, n := range s.networks {
		for _, e := range s.endpoints[n] {
			o, linked := links[e.ID()]
			if !linked {
				continue
			}
			f, err := s.o.kernel.Find(ctx, o, ns)
			if err != nil {
				continue // the attachment differs, which others tell
			}
			m.look(n, e.ID(), f)
		}
	}
	if len(m.found) == 0 {
		return []Finding{{About: about, Found: "no link of a container takes more than its way"}}
	}
	return orWell(m.found, about, len(m.found))
}

// mtus gathers findings.
type mtus struct {
	uplink int // of the default route; 0: there is none
	said   map[string]bool
	found  []Finding
}

func (m *mtus) look(n *engine.Network, id model.ID, f link.Found) {
	if f.HostMTU < f.MTU {
		m.add(f.HostName, fmt.Sprintf("%s, of %s in network %q, takes %d bytes, and the container's %s %d: what is larger is lost", f.HostName, id.ContainerID, n.Name(), f.HostMTU, f.IfName, f.MTU),
			fmt.Sprintf("ip link set %s mtu %d", f.HostName, f.MTU))
	}
	if f.Bridge != "" && f.BridgeMTU < f.MTU && n.Config().HasGateway() {
		m.add(f.Bridge, fmt.Sprintf("bridge %s takes %d bytes, and %s of %s in network %q %d: what the host sends is cut to pieces, or lost", f.Bridge, f.BridgeMTU, f.IfName, id.ContainerID, n.Name(), f.MTU),
			fmt.Sprintf("ip link set %s mtu %d", f.Bridge, f.MTU))
	}
	if c := n.Config(); m.uplink > 0 && m.uplink < f.MTU && c.HasGateway() && !c.IsInternal() && !c.Tunnel.Used() {
		m.add("network "+n.Name(), fmt.Sprintf("network %q: its containers send packets of %d bytes, and the host's default route takes %d: senders have to be told, which firewalls on the way may prevent", n.Name(), f.MTU, m.uplink),
			fmt.Sprintf(`write "mtu": "auto" in its configuration, or %d, and restart its containers`, m.uplink))
	}
}

// add tells of a thing once.
func (m *mtus) add(of, found, advice string) {
	if !m.said[of] {
		m.said[of] = true
		m.found = append(m.found, Finding{"MTU", found, advice})
	}
}
