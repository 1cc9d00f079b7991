package publish

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/conntrack"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/policy"
	"github.com/libnet-cni/libnet/internal/state"
)

// EndFlows ends what conntrack knows of connections by the ports of an
// attachment, but those on standby, that went elsewhere before it had them.
func (k *Ports) EndFlows(ctx context.Context, rec state.Endpoint, standby []firewall.PortMap) error {
	return k.forget(ctx, conntrack.Filter{Flows: flowsBy(rec, standby)})
}

// EndAllFlows is endFlows, and ends the connections of the attachments' addresses,
// whichever end began them. Those by IPv6 are left to endEarlierFlows where there are no
// ports: the kernel's filter does not find them, and a list of the whole table
// takes as long as an ADD. The kernel walks its table once for many attachments as for one.
func (k *Ports) EndAllFlows(ctx context.Context, recs ...state.Endpoint) error {
	var filter conntrack.Filter
	for _, rec := range recs {
		addrs := rec.Addrs()
		if len(rec.Ports) == 0 {
			addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return !a.Unmap().Is4() })
		}
		filter.Flows, filter.Addrs = append(filter.Flows, flowsBy(rec, nil)...), append(filter.Addrs, addrs...)
	}
	return k.forget(ctx, filter)
}

// endPublished is endFlows, and ends what the container answers: it lives on, and
// what it began is its own.
func (k *Ports) endPublished(ctx context.Context, rec state.Endpoint) error {
	if len(rec.Ports) == 0 {
		return nil
	}
	return k.forget(ctx, conntrack.Filter{Flows: flowsBy(rec, nil), Targets: rec.Addrs()})
}

// EndEarlierFlows ends the connections of addresses that had another owner, before
// their new one can be reached on a bridge. It reports whether none had one, ever, on that bridge.
func (k *Ports) EndEarlierFlows(ctx context.Context, addrs []netip.Addr, bridge string, mac net.HardwareAddr) (unknown bool, err error) {
	if len(addrs) == 0 {
		return false, nil
	}
	given, err := k.Standby.GiveAddrs(addrs, bridge, mac)
	if err != nil {
		return false, err
	}
	return given.Noted && len(given.Again) == 0, k.forget(ctx, conntrack.Filter{Addrs: given.Again})
}

// EndUnguardedFlows ends the connections to addresses of the endpoint's subnets: a
// bridge that had no guard let them in, or the host sent them elsewhere.
// Where every connection may come in anyway, none is ended.
func (k *Ports) EndUnguardedFlows(ctx context.Context, n *plan.Network, rec state.Endpoint) error {
	if rules := n.Asked(); !policy.Closes(rules) {
		return nil
	}
	var subnets []netip.Prefix
	for _, a := range rec.Addresses {
		subnets = append(subnets, a.Prefix.Masked())
	}
	return k.forget(ctx, conntrack.Filter{To: subnets})
}

func (k *Ports) forget(ctx context.Context, filter conntrack.Filter) error {
	if len(filter.Flows)+len(filter.Targets)+len(filter.Addrs)+len(filter.To) == 0 {
		return nil
	}
	if err := k.Flush(ctx, filter); err != nil && !errors.Is(err, conntrack.ErrUnsupported) {
		return fmt.Errorf("flush connections of earlier owners: %w", err)
	}
	return nil
}

func flowsBy(rec state.Endpoint, standby []firewall.PortMap) []conntrack.Flow {
	var all []conntrack.Flow
	for _, m := range servedPorts(rec, standby) {
		if m.Protocol == firewall.TCP || m.HostPort == 0 {
			continue // a TCP client begins anew, and others use the port elsewhere; 0 was not chosen yet
		}
		all = append(all, conntrack.Flow{Protocol: uint8(m.Protocol), HostIP: m.HostIP, First: m.HostPort, Last: m.HostPortEnd})
	}
	return all
}

// servedPorts are the ports of a record that lead to it.
func servedPorts(rec state.Endpoint, standby []firewall.PortMap) []firewall.PortMap {
	ports := model.FirewallPorts(plan.PortsOf(rec))
	if len(standby) == 0 {
		return ports
	}
	var all []firewall.PortMap
	for _, is4 := range []bool{true, false} {
		served, err := firewall.Resolve(ports, standby, is4)
		if err != nil {
			return ports
		}
		for _, m := range served {
			all = append(all, m.InFamily(is4))
		}
	}
	return all
}
