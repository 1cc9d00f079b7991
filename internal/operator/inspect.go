package operator

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/responder"
	"github.com/libnet-cni/libnet/internal/state"
)

// Life is what is known of the container behind an attachment.
type Life string

// The lives.
const (
	Alive      Life = "alive"      // or not provably dead
	Dead       Life = "dead"       // provably: Collect may take it
	NotJoined  Life = "not joined" // it has addresses and no sandbox yet
	Unfinished Life = "unfinished" // ADD is at work, or was killed
)

// Attachment is what the record of an endpoint, or of ports that a Publisher
// published, tells of it.
type Attachment struct {
	ID        model.ID
	Life      Life
	Why       string // it is dead; else empty
	Netns     string // path; empty: not joined
	Runtime   string // as WithRuntime has it; empty: unknown
	Addresses []netip.Prefix
	MAC       string        // of the container's interface; empty: of a publication
	HostName  string        // the host's end of the link; empty: of a publication
	Backend   model.Backend // that holds its rules; empty: it has none
	// GatewayPriority of the network among those of the container.
	GatewayPriority int
	Ports           []PublishedPort
}

// PublishedPort is a published port, or range of them, as it holds for one
// address of a container.
type PublishedPort struct {
	Protocol string
	// Host is the address to be asked, 0.0.0.0 or :: for any of the host. The
	// zero Addr with HostPort 0: no address of the host is, GatewayRouted has
	// clients ask for the container's own.
	Host netip.Addr
	// HostPortEnd and TargetPortEnd, if not 0, make it a range, both ends included.
	HostPort, HostPortEnd     int
	Target                    netip.Addr // the container's
	TargetPort, TargetPortEnd int
	Sources                   []netip.Prefix // nil: all clients
	// Standby: the port, or a part of the range, leads to another attachment of the
	// same container, and will lead to this one when that goes.
	Standby bool
}

// Inspect returns what is recorded of an endpoint.
func (o *Operator) Inspect(e *engine.Endpoint) Attachment {
	rec, config := e.Record(), e.Network().Config()
	a := o.attachment(rec)
	a.MAC, a.HostName = rec.MAC, rec.HostName
	if !config.IsInternal() {
		a.Ports = o.publishedPorts(rec, config.Mode)
	}
	return a
}

// SubnetUse is a subnet of a network, and how many of its attachments have an address of it.
type SubnetUse struct {
	Subnet    netip.Prefix
	Endpoints int
	// Earlier: attachments have it of an earlier configuration, the pool gives none of it any more.
	Earlier bool
}

// SubnetsOf returns the subnets of a network's pool, then those that only its attachments have.
func SubnetsOf(n *engine.Network, endpoints []*engine.Endpoint) []SubnetUse {
	var all []SubnetUse
	for _, s := range n.Subnets() {
		all = append(all, SubnetUse{Subnet: s})
	}
	pooled := len(all) > 0
	for _, e := range endpoints {
		for _, a := range e.Addressing().Addresses {
			i := slices.IndexFunc(all, func(u SubnetUse) bool { return u.Subnet.Contains(a.Prefix.Addr()) })
			if i < 0 && (a.Prefix.IsSingleIP() || a.Prefix.Addr().IsLinkLocalUnicast()) {
				continue
			}
			if i < 0 {
				i, all = len(all), append(all, SubnetUse{Subnet: a.Prefix.Masked(), Earlier: pooled})
			}
			all[i].Endpoints++
		}
	}
	return all
}

// Publications returns what Publishers published, in the order of networks.
// Unreadable records are left out and reported in the error, beside the rest.
func (o *Operator) Publications(context.Context) ([]Attachment, error) {
	recs, err := o.ports.PublicationRecords()
	var all []Attachment
	for _, rec := range recs {
		a := o.attachment(rec)
		a.Ports = o.publishedPorts(rec, func(bool) model.GatewayMode { return model.GatewayOpen })
		all = append(all, a)
	}
	return all, err
}

func (o *Operator) attachment(rec state.Endpoint) Attachment {
	h := life.OfRecord(rec)
	a := Attachment{ID: h.ID, Why: h.WhyDead(o.boot), Netns: rec.Netns, Runtime: rec.Runtime, GatewayPriority: rec.GatewayPriority}
	for _, addr := range rec.Addresses {
		a.Addresses = append(a.Addresses, addr.Prefix)
	}
	if rec.Rules {
		a.Backend = cmp.Or(model.Backend(rec.Backend), model.BackendNFTables)
	}
	switch {
	case a.Why != "":
		a.Life = Dead
	case isService(h.ID):
		a.Life = Alive
	case rec.Netns == "":
		a.Life = NotJoined
	case rec.Phase != state.PhaseReady:
		a.Life = Unfinished
	default:
		a.Life = Alive
	}
	return a
}

// publishedPorts is publishedPorts of a record, with what is on standby.
func (o *Operator) publishedPorts(rec state.Endpoint, mode func(is6 bool) model.GatewayMode) []PublishedPort {
	all := publishedPorts(plan.PortsOf(rec), rec.Addrs(), mode)
	standby, _ := o.ports.Waiting(rec) // what cannot be read waits for nothing
	for i, p := range all {
		m := model.PortMapping{Protocol: p.Protocol, HostIP: p.Host, HostPort: p.HostPort, HostPortEnd: p.HostPortEnd}.Firewall()
		all[i].Standby = p.HostPort != 0 && slices.ContainsFunc(standby, m.Meets)
	}
	return all
}

// publishedPorts says how ports are reached: those of the host lead to the
// first address of each family.
func publishedPorts(ports []model.PortMapping, addrs []netip.Addr, mode func(is6 bool) model.GatewayMode) []PublishedPort {
	var all []PublishedPort
	for _, is6 := range []bool{false, true} {
		i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is6() == is6 })
		if i < 0 {
			continue
		}
		for _, m := range ports {
			if host := m.HostIP.Unmap(); !host.IsValid() || host.Is6() == is6 {
				all = append(all, publishedAt(m, addrs[i], mode(is6)))
			}
		}
	}
	return all
}

func publishedAt(m model.PortMapping, target netip.Addr, mode model.GatewayMode) PublishedPort {
	p := PublishedPort{
		Protocol: m.Protocol, Host: m.HostIP.Unmap(), HostPort: m.HostPort, HostPortEnd: m.HostPortEnd,
		Target: target, TargetPort: m.ContainerPort, Sources: m.Sources,
	}
	if m.HostPortEnd != 0 {
		p.TargetPortEnd = m.ContainerPort + m.HostPortEnd - m.HostPort
	}
	switch {
	case mode == model.GatewayRouted:
		p.Host, p.HostPort, p.HostPortEnd = netip.Addr{}, 0, 0
	case p.Host.IsValid():
	case target.Is6():
		p.Host = netip.IPv6Unspecified()
	default:
		p.Host = netip.IPv4Unspecified()
	}
	return p
}

// NameCounts are the queries that the kernel has read; see responder.Counts.
type NameCounts = responder.Counts

// CountNames returns what the kernel of this host has counted for the networks of a state
// directory; empty: the default. It opens nothing else.
func CountNames(ctx context.Context, stateDir string) (NameCounts, error) {
	return responder.New(state.New(stateDir).Path(), nil).Counts(ctx)
}
