package enforce

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/libnet-cni/libnet/internal/netpolicy"
)

// Pod is a pod as the API tells of it, with a network of its own and not at its end.
type Pod struct {
	netpolicy.Key
	// IDs are its UID, and that of the file that it was made from, if it was.
	IDs     []string
	Node    string
	Labels  map[string]string
	Addrs   []netip.Addr
	Ports   []netpolicy.Port
	Created time.Time
	Leaving bool // it is being deleted
}

// is says whether the pod is the one that a runtime gave this UID; empty: it gave none.
func (p *Pod) is(uid string) bool { return uid == "" || slices.Contains(p.IDs, uid) }

// Namespace takes a namespace over, or forgets it.
func (e *Enforcer) Namespace(from *corev1.Namespace, gone bool) {
	labels := from.Labels
	if gone {
		labels = nil
	} else if labels == nil {
		labels = map[string]string{}
	}
	e.locked(func() bool { return e.compiler.SetNamespace(from.Name, labels) })
}

// Pod takes a pod over, or forgets it. One that has its node's network, or has ended, is none.
func (e *Enforcer) Pod(from *corev1.Pod, gone bool) {
	k := netpolicy.Key{Namespace: from.Namespace, Name: from.Name}
	var now *Pod
	if !gone && !from.Spec.HostNetwork && from.Status.Phase != corev1.PodSucceeded && from.Status.Phase != corev1.PodFailed {
		now = podOf(from)
	}
	e.locked(func() bool {
		before := e.pods[k]
		if before == nil && now == nil {
			return false
		}
		if e.pods[k] = now; now == nil {
			delete(e.pods, k)
		}
		news := e.claim(k, before, now)
		// A pod of another UID opens the port of its own attachment only.
		return news || len(e.byPod[k]) > 0 && (before == nil || now == nil || !slices.Equal(before.IDs, now.IDs))
	})
}

// Policy takes a policy over, or forgets it.
func (e *Enforcer) Policy(from *networkingv1.NetworkPolicy, gone bool) {
	k := netpolicy.Key{Namespace: from.Namespace, Name: from.Name}
	e.locked(func() bool {
		delete(e.unread, k)
		e.policyNews++
		if gone {
			return e.compiler.DeletePolicy(k)
		}
		if err := e.compiler.SetPolicy(from); err != nil {
			e.unread[k] = err
			e.log.Warn("a part of a NetworkPolicy cannot be read, and allows nothing", "policy", k, "error", strings.ReplaceAll(err.Error(), "\n", "; "))
		}
		return true
	})
}

// Annotations of the pod that the API shows for one that kubelet has from a file: either is the UID
// that a runtime is given.
var ofFiles = []string{"kubernetes.io/config.mirror", "kubernetes.io/config.hash"}

func podOf(from *corev1.Pod) *Pod {
	p := &Pod{
		Key: netpolicy.Key{Namespace: from.Namespace, Name: from.Name}, IDs: []string{string(from.UID)}, Node: from.Spec.NodeName,
		Labels: from.Labels, Created: from.CreationTimestamp.Time, Leaving: from.DeletionTimestamp != nil,
	}
	for _, key := range ofFiles {
		if id := from.Annotations[key]; id != "" {
			p.IDs = append(p.IDs, id)
		}
	}
	ips := []string{from.Status.PodIP}
	for _, ip := range from.Status.PodIPs {
		ips = append(ips, ip.IP)
	}
	for _, ip := range ips {
		if a, err := netip.ParseAddr(ip); err == nil && !slices.Contains(p.Addrs, a.Unmap()) {
			p.Addrs = append(p.Addrs, a.Unmap())
		}
	}
	for _, c := range slices.Concat(from.Spec.InitContainers, from.Spec.Containers) {
		for _, port := range c.Ports {
			protocol, known := netpolicy.ProtocolOf(port.Protocol)
			if port.Name != "" && known {
				p.Ports = append(p.Ports, netpolicy.Port{Name: port.Name, Protocol: protocol, Number: uint16(port.ContainerPort)})
			}
		}
	}
	return p
}

// Synced says that all of a kind is known: "pods", "namespaces", "networkpolicies".
func (e *Enforcer) Synced(kind string) {
	e.locked(func() bool {
		news := e.missing[kind]
		delete(e.missing, kind)
		return news
	})
}

// Trouble says why the API is not heard of a kind; nil: it is.
func (e *Enforcer) Trouble(kind string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.trouble[kind] = err; err == nil {
		delete(e.trouble, kind)
	}
}

// locked calls change, which says whether there is something to do.
func (e *Enforcer) locked(change func() bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if change() {
		e.touch()
	}
}

// touch has the loop look, and notes since when there is something to do.
func (e *Enforcer) touch() {
	if e.since.IsZero() {
		e.since = time.Now()
	}
	e.give()
}

// give has the loop look.
func (e *Enforcer) give() {
	select {
	case e.dirty <- struct{}{}:
	default:
	}
}

// claim takes over which addresses a pod has now, and has all be told to the compiler whose addresses
// may have changed by that.
func (e *Enforcer) claim(k netpolicy.Key, before, now *Pod) (news bool) {
	touched := map[netpolicy.Key]bool{k: true}
	for i, p := range []*Pod{before, now} {
		if p == nil {
			continue
		}
		for _, a := range p.Addrs {
			claims := e.claims[a]
			claims = slices.DeleteFunc(claims, func(c netpolicy.Key) bool { return c == k })
			for _, other := range claims {
				touched[other] = true
			}
			if i == 1 {
				claims = append(claims, k)
			}
			if e.claims[a] = claims; len(claims) == 0 {
				delete(e.claims, a)
			}
		}
	}
	for k := range touched {
		news = e.tell(k) || news
	}
	return news
}

// tell has the compiler know a pod as it is now.
func (e *Enforcer) tell(k netpolicy.Key) (news bool) {
	p := e.pods[k]
	if p == nil {
		return e.compiler.DeletePod(k)
	}
	addrs := map[netip.Addr]bool{}
	for _, a := range p.Addrs {
		if e.owner(a) == k {
			addrs[a] = true
		}
	}
	local := p.Node == e.conf.Node
	for at := range e.byPod[k] {
		rec := e.places[at]
		if !p.is(rec.uid) {
			continue
		}
		local = true
		for _, a := range rec.addrs {
			addrs[a] = true
		}
	}
	return e.compiler.SetPod(netpolicy.Pod{Key: k, Labels: p.Labels, Ports: p.Ports, Local: local, Addrs: slices.SortedFunc(maps.Keys(addrs), netip.Addr.Compare)})
}

// owner is the pod that has an address. Of two that claim it, one has ended and the API has not said
// so yet. A record of this host is right about this host's addresses.
func (e *Enforcer) owner(a netip.Addr) netpolicy.Key {
	if at, there := e.byAddr[a]; there && e.places[at].pod != (netpolicy.Key{}) {
		return e.places[at].pod
	}
	claims := e.claims[a]
	best := claims[0]
	for _, k := range claims[1:] {
		if e.pods[k].after(e.pods[best]) {
			best = k
		}
	}
	return best
}

// after says that p has an address that q has had.
func (p *Pod) after(q *Pod) bool {
	switch {
	case p == nil || q == nil:
		return q == nil
	case p.Leaving != q.Leaving:
		return q.Leaving
	case !p.Created.Equal(q.Created):
		return p.Created.After(q.Created)
	}
	return p.String() < q.String()
}
