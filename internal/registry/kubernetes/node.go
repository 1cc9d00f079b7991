package kubernetes

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Annotations of Nodes.
const (
	// OverlayAnnotation is what the agent of a Node says: JSON, written by that agent only.
	OverlayAnnotation = "libnet-cni.dev/overlay"
	// AddressAnnotation is the address at which other hosts reach a Node, where it is not the
	// first InternalIP. A person writes it.
	AddressAnnotation = "libnet-cni.dev/address"
	// EvictedAnnotation keeps a Node out of all networks. A person writes it.
	EvictedAnnotation = "libnet-cni.dev/evicted"
)

// node is what is kept of a Node.
type node struct {
	name     string
	created  int64        // Unix time, in seconds
	inside   []netip.Addr // InternalIPs
	outside  []netip.Addr // ExternalIPs
	podCIDRs []netip.Prefix
	// evicted and override are the annotations.
	evicted  bool
	override string
	text     string // of OverlayAnnotation
	// unavailable is the condition NetworkUnavailable: the scheduler keeps pods away.
	unavailable bool
	said        announcement
	problems    []string // what of it cannot be read
}

// reduce leaves of a Node what newNode reads: heartbeats then leave no trace.
func reduce(from *corev1.Node) *corev1.Node {
	to := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: from.Name, UID: from.UID, ResourceVersion: from.ResourceVersion, CreationTimestamp: from.CreationTimestamp,
	}}
	for _, key := range []string{OverlayAnnotation, AddressAnnotation, EvictedAnnotation} {
		if value, there := from.Annotations[key]; there {
			metav1.SetMetaDataAnnotation(&to.ObjectMeta, key, value)
		}
	}
	to.Spec.PodCIDRs = slices.Clone(from.Spec.PodCIDRs)
	for _, a := range from.Status.Addresses {
		if a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP {
			to.Status.Addresses = append(to.Status.Addresses, a)
		}
	}
	for _, c := range from.Status.Conditions {
		if c.Type == corev1.NodeNetworkUnavailable {
			to.Status.Conditions = append(to.Status.Conditions, c)
		}
	}
	return to
}

// newNode reads a Node. before is what was known of it, of which the announcement is taken over if
// its text is the same; nil: nothing.
func newNode(from *corev1.Node, before *node) *node {
	n := &node{name: from.Name, created: from.CreationTimestamp.Unix(), override: from.Annotations[AddressAnnotation], text: from.Annotations[OverlayAnnotation]}
	_, n.evicted = from.Annotations[EvictedAnnotation]
	n.unavailable = slices.ContainsFunc(from.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeNetworkUnavailable && c.Status != corev1.ConditionFalse
	})
	for _, a := range from.Status.Addresses {
		addr, err := netip.ParseAddr(a.Address)
		switch {
		case err != nil:
			n.problems = append(n.problems, fmt.Sprintf("node %s: %s %q is no address", n.name, a.Type, a.Address))
		case a.Type == corev1.NodeInternalIP:
			n.inside = append(n.inside, addr)
		case a.Type == corev1.NodeExternalIP:
			n.outside = append(n.outside, addr)
		}
	}
	for _, text := range from.Spec.PodCIDRs {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			n.problems = append(n.problems, fmt.Sprintf("node %s: podCIDR %q is no prefix", n.name, text))
			continue
		}
		n.podCIDRs = append(n.podCIDRs, p)
	}
	if before != nil && before.text == n.text {
		n.said = before.said
		return n
	}
	var err error
	if n.said, err = decode(n.text); err != nil {
		n.problems = append(n.problems, fmt.Sprintf("node %s: annotation %s: %v", n.name, OverlayAnnotation, err))
	}
	return n
}

// same says that two say the same of a Node.
func (n *node) same(o *node) bool {
	return n.created == o.created && n.override == o.override && n.text == o.text && n.evicted == o.evicted && n.unavailable == o.unavailable &&
		slices.Equal(n.inside, o.inside) && slices.Equal(n.outside, o.outside) && slices.Equal(n.podCIDRs, o.podCIDRs) && slices.Equal(n.problems, o.problems)
}

// address is where other hosts reach the Node. An announced one counts only if the Node has it: the
// agent's token must not take what belongs to another Node.
func (n *node) address() (a netip.Addr, problem string) {
	if n.override != "" {
		a, err := netip.ParseAddr(n.override)
		if err != nil {
			return a, fmt.Sprintf("node %s: annotation %s: %q is no address", n.name, AddressAnnotation, n.override)
		}
		return a, ""
	}
	a = n.said.Address
	switch {
	case a.IsValid() && !slices.Contains(n.inside, a) && !slices.Contains(n.outside, a):
		return netip.Addr{}, fmt.Sprintf("node %s: its agent has the address %s, which is none of its InternalIPs %v and ExternalIPs %v; if that is right, run: kubectl annotate node %s %s=%s",
			n.name, a, n.inside, n.outside, n.name, AddressAnnotation, a)
	case a.IsValid():
		return a, ""
	case len(n.inside) > 0:
		return n.inside[0], ""
	}
	return netip.Addr{}, fmt.Sprintf("node %s has no InternalIP", n.name)
}
