package trace

import (
	"fmt"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/nftrace"
	"github.com/libnet-cni/libnet/internal/state"
)

// reason is why a rule of the tables "libnet" drops packets: whose configuration asks for it, and
// what changes that.
type reason struct {
	of   side
	does string
}

// side says by which of its interfaces a packet is for the network that has the rule.
type side int

const (
	nothing side = iota // no network
	into                // it leaves by the network's bridge
	outOf               // it came in by that
)

const answered = "publish the port (portMappings), let an interface in (trustedInterfaces) or a mark (acceptFwMark), or give another gatewayMode"

// reasons are by the comment of the rule.
var reasons = map[string]reason{
	"published on localhost is for this host alone":                                {nothing, "the port is published on 127.0.0.1: publish it on an address that others reach (hostIP)"},
	"nothing out of a tunnel but of the network's hosts":                           {outOf, "it came by the tunnel from no host of the network: lnctl overlay peers lists them (nodes, or those of ln-agent)"},
	"not from a host of the network, ipv4":                                         {nothing, "it is VXLAN of no host of the network: lnctl overlay peers lists them (nodes, or those of ln-agent)"},
	"not from a host of the network, ipv6":                                         {nothing, "it is VXLAN of no host of the network: lnctl overlay peers lists them (nodes, or those of ln-agent)"},
	"in the name of a host that is elsewhere":                                      {nothing, "it is VXLAN in the name of another host, by an interface that leads elsewhere: compare with ip route get"},
	"nothing without a source into the host":                                       {outOf, "the host answers none of its containers (gatewayMode isolated, or isolated)"},
	"no traffic between containers":                                                {into, "its containers do not reach each other (icc false, or ingressPolicy isolated)"},
	"to this host's end of a tunnel, past it, only from the network's hosts, ipv4": {nothing, "it came past the tunnel (directRouting) from no host of the network on that segment: lnctl overlay peers lists them"},
	"to this host's end of a tunnel, past it, only from the network's hosts, ipv6": {nothing, "it came past the tunnel (directRouting) from no host of the network on that segment: lnctl overlay peers lists them"},
	"nothing out of an encrypted network past its tunnel, ipv4":                    {outOf, "it is encrypted, and the packet would leave by another way than its tunnel: lnctl overlay check"},
	"nothing out of an encrypted network past its tunnel, ipv6":                    {outOf, "it is encrypted, and the packet would leave by another way than its tunnel: lnctl overlay check"},
	"nothing into an encrypted network past its tunnel, ipv4":                      {into, "it is encrypted, and the packet came by another way than its tunnel: lnctl overlay check"},
	"nothing into an encrypted network past its tunnel, ipv6":                      {into, "it is encrypted, and the packet came by another way than its tunnel: lnctl overlay check"},
	"nothing out of an internal network":                                           {outOf, "it is internal (internal, or gatewayMode isolated): give the container another network for what is outside"},
	"nothing into an internal network":                                             {into, "it is internal (internal, or gatewayMode isolated): give the other container this network, too"},
	"nothing else between a tunnel and other networks":                             {nothing, "between hosts of a network and other networks only published ports pass: publish the port, or attach the container to both"},
	"networks apart from each other":                                               {into, "it takes nothing of another network with ingressPolicy same-bridge or isolated: attach a container to both, or remove the key from one"},
	"all else":                                                                     {into, "only published ports come in (gatewayMode): " + answered},
	"no connections from the host":                                                 {into, "the host does not reach it (gatewayMode isolated, or isolated)"},
	"no connections from the host, by an address that is anycast, too":             {into, "the host does not reach it (gatewayMode isolated, or isolated)"},
	"no other source MAC than the container's":                                     {outOf, "a container sent by another MAC address than its own (macspoofchk)"},
}

// bridges are the networks of this host by bridge.
type bridges map[string][]string

func bridgesOf(records []state.Endpoint) bridges {
	all := bridges{}
	for _, r := range records {
		if r.Bridge != "" && !slices.Contains(all[r.Bridge], r.Network) {
			all[r.Bridge] = append(all[r.Bridge], r.Network)
		}
	}
	return all
}

// why says which network's configuration has the rule that drops a packet; empty: the rule is of
// another release.
func (b bridges) why(s nftrace.Step) string {
	r, known := reasons[s.Comment]
	if !known {
		return ""
	}
	device := map[side]string{into: s.Out, outOf: s.In}[r.of]
	if networks := b[device]; len(networks) > 0 {
		return fmt.Sprintf("network %s: %s", quoted(networks), r.does)
	}
	if r.of != nothing && device != "" {
		return fmt.Sprintf("the network of %s: %s", device, r.does)
	}
	return r.does
}

func quoted(names []string) string {
	var all []string
	for _, n := range names {
		all = append(all, fmt.Sprintf("%q", n))
	}
	return strings.Join(all, " or ")
}
