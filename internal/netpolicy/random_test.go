package netpolicy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// oracle judges as the documentation of the API reads, without classes.
type oracle struct {
	spaces   map[string]map[string]string
	pods     []Pod
	policies map[Key]*networkingv1.NetworkPolicy
}

func (o oracle) podAt(a netip.Addr) *Pod {
	i := slices.IndexFunc(o.pods, func(p Pod) bool { return slices.Contains(p.Addrs, a) })
	if i < 0 {
		return nil
	}
	return &o.pods[i]
}

func selects(s *metav1.LabelSelector, set map[string]string) bool {
	sel, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && sel.Matches(labels.Set(set))
}

func (o oracle) passes(from, to netip.Addr, protocol firewall.Protocol, port uint16) bool {
	return from == to || o.side(from, to, to, protocol, port, networkingv1.PolicyTypeEgress) && o.side(to, from, to, protocol, port, networkingv1.PolicyTypeIngress)
}

// side judges one end of a connection to server.
func (o oracle) side(self, other, server netip.Addr, protocol firewall.Protocol, port uint16, typ networkingv1.PolicyType) bool {
	pod, isolated := o.podAt(self), false
	if pod == nil {
		return true
	}
	for _, p := range o.policies {
		if p.Namespace != pod.Namespace || !selects(&p.Spec.PodSelector, pod.Labels) || !slices.Contains(p.Spec.PolicyTypes, typ) {
			continue
		}
		isolated = true
		if typ == networkingv1.PolicyTypeIngress {
			for _, r := range p.Spec.Ingress {
				if o.peer(p.Namespace, r.From, other) && o.port(r.Ports, server, protocol, port) {
					return true
				}
			}
			continue
		}
		for _, r := range p.Spec.Egress {
			if o.peer(p.Namespace, r.To, other) && o.port(r.Ports, server, protocol, port) {
				return true
			}
		}
	}
	return !isolated
}

func (o oracle) peer(namespace string, peers []networkingv1.NetworkPolicyPeer, a netip.Addr) bool {
	pod := o.podAt(a)
	return len(peers) == 0 || slices.ContainsFunc(peers, func(p networkingv1.NetworkPolicyPeer) bool {
		if p.IPBlock != nil {
			return netip.MustParsePrefix(p.IPBlock.CIDR).Contains(a) &&
				!slices.ContainsFunc(p.IPBlock.Except, func(e string) bool { return netip.MustParsePrefix(e).Contains(a) })
		}
		if pod == nil || p.PodSelector != nil && !selects(p.PodSelector, pod.Labels) {
			return false
		}
		if p.NamespaceSelector == nil {
			return pod.Namespace == namespace
		}
		return selects(p.NamespaceSelector, o.spaces[pod.Namespace])
	})
}

func (o oracle) port(ports []networkingv1.NetworkPolicyPort, server netip.Addr, protocol firewall.Protocol, number uint16) bool {
	pod := o.podAt(server)
	return len(ports) == 0 || slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		if protocols[*p.Protocol] != protocol {
			return false
		}
		switch {
		case p.Port == nil:
			return true
		case p.Port.Type == intstr.String:
			return pod != nil && slices.Contains(pod.Ports, Port{p.Port.StrVal, protocol, number})
		case p.EndPort != nil:
			return p.Port.IntVal <= int32(number) && int32(number) <= *p.EndPort
		}
		return p.Port.IntVal == int32(number)
	})
}

// Whatever changes, what is compiled allows what the oracle allows, and nothing else.
func TestRandom(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(r)
		for step := range 40 {
			w.change()
			if step%4 != 3 {
				continue
			}
			rules := w.c.Compile()
			for range 300 {
				from, to := w.address(), w.address()
				protocol, port := firewall.Protocol([]int{6, 17, 132}[r.IntN(3)]), uint16(r.IntN(12))
				if got, want := rules.passes(from, to, protocol, port), w.o.passes(from, to, protocol, port); got != want {
					t.Fatalf("seed %d step %d: %s %s to %s port %d passes: %v, want %v\n%+v", seed, step, protocol, from, to, port, got, want, rules)
				}
			}
		}
	}
}

// world changes at random, for the compiler and for the oracle.
type world struct {
	*rand.Rand
	c *Compiler
	o oracle
	// wild says that several pods may have an address, or none, and that some are of other nodes.
	wild bool
}

func newWorld(r *rand.Rand) *world {
	return &world{Rand: r, c: New(), o: oracle{map[string]map[string]string{}, nil, map[Key]*networkingv1.NetworkPolicy{}}}
}

// addrs are addresses of a pod.
func addrs(n int) []netip.Addr {
	return []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(n)})}
}

func (w *world) labels() map[string]string {
	return map[string]string{"k": fmt.Sprint(w.IntN(3)), "l": fmt.Sprint(w.IntN(2))}
}

func (w *world) namespace() string { return fmt.Sprint("n", w.IntN(3)) }

func (w *world) address() netip.Addr {
	if w.IntN(3) == 0 {
		return netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(w.IntN(24))})
	}
	return netip.AddrFrom4([4]byte{10, 0, 0, byte(w.IntN(24))})
}

func (w *world) change() {
	switch w.IntN(6) {
	case 0:
		ns := w.namespace()
		w.o.spaces[ns] = w.labels()
		w.c.SetNamespace(ns, w.o.spaces[ns])
	case 1, 2:
		n := w.IntN(16)
		p := Pod{Key: Key{w.namespace(), fmt.Sprint("p", n)}, Labels: w.labels(), Local: true, Addrs: addrs(n),
			Ports: []Port{{"web", firewall.TCP, uint16(w.IntN(12))}, {"dns", firewall.UDP, uint16(w.IntN(12))}}}
		if w.wild {
			p.Addrs, p.Local = slices.Concat(addrs(n%8), addrs(16+n))[w.IntN(4):], w.IntN(2) == 0
		}
		w.o.pods = slices.DeleteFunc(w.o.pods, func(q Pod) bool {
			if q.Name == p.Name {
				w.c.DeletePod(q.Key)
			}
			return q.Name == p.Name
		})
		if w.o.spaces[p.Namespace] == nil {
			w.o.spaces[p.Namespace] = w.labels()
			w.c.SetNamespace(p.Namespace, w.o.spaces[p.Namespace])
		}
		w.o.pods = append(w.o.pods, p)
		w.c.SetPod(p)
	case 3:
		k := Key{w.namespace(), fmt.Sprint("q", w.IntN(3))}
		delete(w.o.policies, k)
		w.c.DeletePolicy(k)
	default:
		p := w.policy()
		w.o.policies[Key{p.Namespace, p.Name}] = p
		if err := w.c.SetPolicy(p); err != nil {
			panic(err)
		}
	}
}

func (w *world) selector() *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	for _, key := range []string{"k", "l"} {
		switch w.IntN(4) {
		case 0:
			s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpNotIn, Values: []string{fmt.Sprint(w.IntN(3))}})
		case 1:
			s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpIn, Values: []string{fmt.Sprint(w.IntN(3)), "0"}})
		}
	}
	return s
}

func (w *world) policy() *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{}
	p.Namespace, p.Name, p.Spec.PodSelector = w.namespace(), fmt.Sprint("q", w.IntN(3)), *w.selector()
	p.Spec.PolicyTypes = [][]networkingv1.PolicyType{{"Ingress"}, {"Egress"}, {"Ingress", "Egress"}}[w.IntN(3)]
	for range w.IntN(3) {
		p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: w.peers(), Ports: w.ports()})
		p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: w.peers(), Ports: w.ports()})
	}
	return p
}

func (w *world) peers() (all []networkingv1.NetworkPolicyPeer) {
	for range w.IntN(3) {
		var p networkingv1.NetworkPolicyPeer
		switch w.IntN(4) {
		case 0:
			bits := 20 + w.IntN(13)
			cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(w.IntN(24))}), bits)
			if w.IntN(3) == 0 {
				bits = 118 + w.IntN(11)
				cidr = netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(w.IntN(24))}), bits)
			}
			if w.IntN(8) == 0 {
				cidr = netip.PrefixFrom(cidr.Addr(), 0)
			}
			p.IPBlock = &networkingv1.IPBlock{CIDR: cidr.Masked().String()}
			for range w.IntN(3) {
				a := cidr.Addr()
				for range w.IntN(9) {
					a = a.Next()
				}
				p.IPBlock.Except = append(p.IPBlock.Except, netip.PrefixFrom(a, a.BitLen()-w.IntN(3)).Masked().String())
			}
		case 1:
			p.PodSelector = w.selector()
		case 2:
			p.NamespaceSelector = w.selector()
		default:
			p.PodSelector, p.NamespaceSelector = w.selector(), w.selector()
		}
		all = append(all, p)
	}
	return all
}

func (w *world) ports() (all []networkingv1.NetworkPolicyPort) {
	for range w.IntN(3) {
		protocol := []corev1.Protocol{"TCP", "UDP", "SCTP"}[w.IntN(3)]
		p := networkingv1.NetworkPolicyPort{Protocol: &protocol}
		switch w.IntN(4) {
		case 0:
		case 1:
			name := intstr.FromString([]string{"web", "dns"}[w.IntN(2)])
			p.Port = &name
		default:
			number := intstr.FromInt32(int32(1 + w.IntN(11)))
			p.Port = &number
			if w.IntN(2) == 0 {
				end := number.IntVal + int32(w.IntN(5))
				p.EndPort = &end
			}
		}
		all = append(all, p)
	}
	return all
}
