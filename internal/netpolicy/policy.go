package netpolicy

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// direction is of a connection, as an isolated pod sees it.
type direction int

const (
	ingress direction = iota
	egress
	directions
)

// policy is a NetworkPolicy, read.
type policy struct {
	key     Key
	target  *term
	applies [directions]bool
	rules   [directions][]rule
}

// rule allows peers some ports.
type rule struct {
	anyPeer bool
	anyPod  bool
	terms   []*term
	blocks  []block
	anyPort bool // and every protocol
	spans   []Span
	named   []namedPort
}

// namedPort is one that the pod that is connected to gives a number.
type namedPort struct {
	name     string
	protocol firewall.Protocol
}

// block is an ipBlock.
type block struct {
	prefix netip.Prefix
	except []netip.Prefix
}

// String names the block.
func (b block) String() string { return fmt.Sprint(b.prefix, b.except) }

// ProtocolOf reads a protocol of the API; empty is TCP. Others than TCP, UDP and SCTP are unknown.
func ProtocolOf(p corev1.Protocol) (number firewall.Protocol, known bool) {
	if p == "" {
		return firewall.TCP, true
	}
	number, known = protocols[p]
	return number, known
}

// protocols are those that policies can name. nf_tables knows others by number only, as ICMP.
var protocols = map[corev1.Protocol]firewall.Protocol{
	corev1.ProtocolTCP: firewall.TCP, corev1.ProtocolUDP: firewall.UDP, corev1.ProtocolSCTP: firewall.SCTP,
}

// read takes a policy over. What of it cannot be read allows nothing, and is told.
func (m *matching) read(from *networkingv1.NetworkPolicy) (*policy, error) {
	p := &policy{key: Key{from.Namespace, from.Name}}
	var err error
	if p.target, err = m.use(from.Namespace, nil, &from.Spec.PodSelector); err != nil {
		return nil, fmt.Errorf("podSelector: %w", err)
	}
	p.applies[ingress] = slices.Contains(from.Spec.PolicyTypes, networkingv1.PolicyTypeIngress) || len(from.Spec.PolicyTypes) == 0
	p.applies[egress] = slices.Contains(from.Spec.PolicyTypes, networkingv1.PolicyTypeEgress) ||
		len(from.Spec.PolicyTypes) == 0 && len(from.Spec.Egress) > 0
	var errs []error
	add := func(d direction, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) {
		r, err := m.readRule(from.Namespace, peers, ports)
		p.rules[d] = append(p.rules[d], r)
		errs = append(errs, err)
	}
	for _, r := range from.Spec.Ingress {
		add(ingress, r.From, r.Ports)
	}
	for _, r := range from.Spec.Egress {
		add(egress, r.To, r.Ports)
	}
	return p, errors.Join(errs...)
}

func (m *matching) readRule(namespace string, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) (rule, error) {
	r := rule{anyPeer: len(peers) == 0, anyPort: len(ports) == 0}
	var errs []error
	for _, peer := range peers {
		if peer.IPBlock != nil {
			b, err := readBlock(peer.IPBlock)
			if errs = append(errs, err); err == nil {
				r.blocks = append(r.blocks, b)
			}
			continue
		}
		if isEmpty(peer.NamespaceSelector) && (peer.PodSelector == nil || isEmpty(peer.PodSelector)) {
			r.anyPod = true
			continue
		}
		t, err := m.use(namespace, peer.NamespaceSelector, peer.PodSelector)
		if errs = append(errs, err); err == nil {
			r.terms = append(r.terms, t)
		}
	}
	for _, port := range ports {
		errs = append(errs, r.readPort(port))
	}
	return r, errors.Join(errs...)
}

// isEmpty says that a selector is there, and selects all.
func isEmpty(s *metav1.LabelSelector) bool {
	return s != nil && len(s.MatchLabels) == 0 && len(s.MatchExpressions) == 0
}

func readBlock(from *networkingv1.IPBlock) (b block, err error) {
	if b.prefix, err = netip.ParsePrefix(from.CIDR); err != nil {
		return b, fmt.Errorf("cidr: %w", err)
	}
	b.prefix = b.prefix.Masked()
	for _, text := range from.Except {
		e, err := netip.ParsePrefix(text)
		if err != nil {
			return b, fmt.Errorf("except: %w", err)
		}
		b.except = append(b.except, e.Masked())
	}
	slices.SortFunc(b.except, func(x, y netip.Prefix) int { return strings.Compare(x.String(), y.String()) })
	return b, nil
}

func (r *rule) readPort(from networkingv1.NetworkPolicyPort) error {
	protocol := firewall.TCP
	if from.Protocol != nil {
		var known bool
		if protocol, known = protocols[*from.Protocol]; !known {
			return fmt.Errorf("protocol %q: want TCP, UDP or SCTP", *from.Protocol)
		}
	}
	switch {
	case from.Port == nil:
		r.spans = append(r.spans, Span{protocol, 0, math.MaxUint16})
	case from.Port.Type == intstr.String:
		r.named = append(r.named, namedPort{from.Port.StrVal, protocol})
	default:
		end := from.Port.IntVal
		if from.EndPort != nil {
			end = *from.EndPort
		}
		if from.Port.IntVal < 0 || end < from.Port.IntVal || end > math.MaxUint16 {
			return fmt.Errorf("port %d to %d: want ports of 1 to 65535", from.Port.IntVal, end)
		}
		r.spans = append(r.spans, Span{protocol, uint16(from.Port.IntVal), uint16(end)})
	}
	return nil
}

// drop gives up what a policy uses.
func (p *policy) drop(m *matching) {
	m.drop(p.target)
	for _, rules := range p.rules {
		for _, r := range rules {
			for _, t := range r.terms {
				m.drop(t)
			}
		}
	}
}
