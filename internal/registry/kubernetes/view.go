package kubernetes

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/overlay"
)

// view is what the Nodes say, as the host self sees it: its networks are those that it has announced
// itself. Another host is in a network if it has announced the same terms.
func view(nodes map[string]*node, self string) overlay.View {
	v := overlay.View{
		Settled: true, Assigned: true, Members: make(map[string]overlay.Member, len(nodes)), Networks: map[string]overlay.Shared{}, Evicted: map[string]string{},
	}
	own := nodes[self]
	if own == nil {
		v.Problems = append(v.Problems, fmt.Sprintf("there is no Node %q: --node-name has to be the name that kubelet registers", self))
		return v
	}
	v.Unavailable = own.unavailable
	for name, n := range own.said.Networks {
		v.Networks[name] = overlay.Shared{
			Terms: n.terms(self, own.said.Address), Agreed: true, Blocks: map[netip.Prefix]overlay.Holding{}, Keys: map[string]overlay.HostKeys{},
		}
		v.Problems = append(v.Problems, own.misfits(name, v.Networks[name].Terms)...)
	}
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		addNode(&v, nodes[name])
	}
	slices.Sort(v.Problems)
	return v
}

// addNode adds a host, and its part in each network.
func addNode(v *overlay.View, n *node) {
	v.Problems = append(v.Problems, n.problems...)
	at, problem := n.address()
	if problem != "" && len(n.said.Networks) > 0 {
		v.Problems = append(v.Problems, problem)
	}
	v.Members[n.name] = overlay.Member{Name: n.name, Address: at, Live: true, Holds: true, Revision: n.created}
	if n.evicted {
		v.Evicted[n.name] = "the annotation " + EvictedAnnotation + " of its Node"
	}
	for name, shared := range v.Networks {
		said, in := n.said.Networks[name]
		if !in || problem != "" {
			continue
		}
		if err := said.terms(n.name, at).Differs(shared.Terms); err != nil {
			v.Problems = append(v.Problems, fmt.Sprintf("node %s: network %s: %v", n.name, name, err))
			continue
		}
		for _, b := range n.podCIDRs {
			if !shared.Terms.Cut(b) {
				continue
			}
			if other, taken := shared.Blocks[b]; taken {
				v.Problems = append(v.Problems, fmt.Sprintf("nodes %s and %s have the same podCIDR %s", other.Node, n.name, b))
				if other.Revision <= n.created {
					continue
				}
			}
			shared.Blocks[b] = overlay.Holding{Node: n.name, Revision: n.created}
		}
		if len(said.Keys) > 0 || said.Direct != nil {
			k := overlay.HostKeys{Keys: said.Keys, Sends: said.Sends, Revision: 1}
			if said.Direct != nil {
				k.Direct = *said.Direct
			}
			shared.Keys[n.name] = k
		}
		if said.Epoch > shared.Epoch.Epoch {
			shared.Epoch = overlay.KeyEpoch{Epoch: said.Epoch, By: n.name}
			v.Networks[name] = shared
		}
	}
}

// misfits says why this host has no block of a network, or not one of each subnet.
func (n *node) misfits(network string, t overlay.Terms) (problems []string) {
	for _, s := range t.Subnets {
		var size []string
		has := false
		for _, b := range n.podCIDRs {
			if has = has || s.Overlaps(b) && t.Cut(b); s.Overlaps(b) && !t.Cut(b) {
				size = append(size, b.String())
			}
		}
		family, bits := "ipv4", t.Size.IPv4
		if s.Addr().Is6() {
			family, bits = "ipv6", t.Size.IPv6
		}
		switch {
		case has:
		case len(n.podCIDRs) == 0:
			problems = append(problems, fmt.Sprintf("node %s has no podCIDR yet: kube-controller-manager gives one, with --allocate-node-cidrs=true and --cluster-cidr", n.name))
			return problems
		case len(size) > 0:
			problems = append(problems, fmt.Sprintf("network %s: podCIDR %s of node %s is no /%d in subnet %s: set \"blockSize\": {\"%s\": N} to its length, and subnet to the cluster's",
				network, strings.Join(size, ", "), n.name, bits, s, family))
		default:
			problems = append(problems, fmt.Sprintf("network %s: no podCIDR %v of node %s is in subnet %s: set subnet to what kube-controller-manager has as --cluster-cidr",
				network, n.podCIDRs, n.name, s))
		}
	}
	return problems
}
