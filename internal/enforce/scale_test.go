package enforce

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/nft"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// A large cluster: 100 namespaces of 100 pods in ten applications, ten policies in each namespace, and
// 110 of the pods on this node, as many as kubelet has by default, of all applications.
const (
	largeSpaces, largePods, largePolicies, largeLocal = 100, 100, 10, 110
	largeStep                                         = 91
)

func largePod(ns, i int) *corev1.Pod {
	p := apiPod(fmt.Sprint("n", ns), fmt.Sprint("p", i), fmt.Sprint(ns, "-", i), fmt.Sprintf("10.%d.%d.2", 20+ns, i), fmt.Sprintf("fd10:%x:%x::2", ns, i))
	p.Labels = map[string]string{"app": fmt.Sprint("app", i%10), "pod": p.Name}
	if p.Spec.NodeName = "other"; (ns*largePods+i)%largeStep == 0 {
		p.Spec.NodeName = "m1"
	}
	return p
}

// largeOf is a policy that isolates the i-th pod of this node, as its namespace and its number.
func largeOf(i int) (ns, policy int) {
	pod := i % largeLocal * largeStep
	return pod / largePods, pod % largePolicies
}

func large(t testing.TB) *Enforcer {
	e := newEnforcer(t)
	for ns := range largeSpaces {
		name := fmt.Sprint("n", ns)
		e.Namespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": fmt.Sprint("t", ns%10), "kubernetes.io/metadata.name": name}}}, false)
		for i := range largePods {
			e.Pod(largePod(ns, i), false)
		}
		for i := range largePolicies {
			e.Policy(largePolicy(t, ns, i, 8000), false)
		}
	}
	return e
}

func largePolicy(t testing.TB, ns, i, port int) *networkingv1.NetworkPolicy {
	return policyOf(t, fmt.Sprint("n", ns), fmt.Sprint("q", i), fmt.Sprintf(`{"podSelector":{"matchLabels":{"app":"app%d"}},"policyTypes":["Ingress","Egress"],
"ingress":[{"from":[{"podSelector":{"matchLabels":{"app":"app%d"}}},{"namespaceSelector":{"matchLabels":{"team":"t%d"}},"podSelector":{"matchExpressions":[{"key":"app","operator":"In","values":["app1","app2"]}]}},{"ipBlock":{"cidr":"192.0.%d.0/24","except":["192.0.%d.8/29"]}}],"ports":[{"port":%d},{"port":9000,"endPort":9100}]}],
"egress":[{"to":[{"namespaceSelector":{}}],"ports":[{"port":53,"protocol":"UDP"},{"port":53}]},{"to":[{"podSelector":{}}]}]}`, i, (i+1)%10, (ns+i)%10, ns, ns, port+i))
}

// A change among 1000 policies and 10,000 pods changes few elements, and is soon in force.
func TestScale(t *testing.T) {
	lntest.Isolate(t)
	e := large(t)
	ctx := context.Background()
	start := time.Now()
	check(t, e.bring(ctx))
	t.Logf("%d policies, %d pods: first in force after %s, %d elements", e.compiler.Policies(), e.compiler.Pods(), time.Since(start).Round(time.Millisecond), e.elems)
	for _, tt := range []struct {
		what   string
		change func(i int)
	}{
		{"a policy's port", func(i int) { e.Policy(largePolicy(t, 0, 0, 8100+i), false) }},
		{"a policy more", func(i int) {
			e.Policy(policyOf(t, "n0", fmt.Sprint("more", i), `{"podSelector":{},"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"team":"t3"}}}]}]}`), false)
		}},
		{"a pod's labels", func(i int) {
			p := largePod(i, 7)
			p.Labels = map[string]string{"app": "app1", "pod": p.Name}
			e.Pod(p, false)
		}},
		{"a pod more", func(i int) { e.Pod(apiPod("n1", fmt.Sprint("new", i), "n", fmt.Sprintf("10.19.0.%d", i+1)), false) }},
		{"a namespace's labels", func(i int) {
			e.Namespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", 50+i), Labels: map[string]string{"team": "t0"}}}, false)
		}},
	} {
		var took []time.Duration
		most := 0
		for i := range 9 {
			before := e.have
			start := time.Now()
			tt.change(i)
			check(t, e.bring(ctx))
			took = append(took, time.Since(start))
			gone, added := changes(e.tables.Sets, before, e.have)
			most = max(most, len(gone)+len(added))
		}
		slices.Sort(took)
		t.Logf("%s: in force after %s, %s at most; %d elements of %d at most", tt.what, took[len(took)/2].Round(100*time.Microsecond), took[len(took)-1].Round(100*time.Microsecond), most, e.elems)
		if most > e.elems/5 {
			t.Errorf("%s changes %d elements of %d", tt.what, most, e.elems)
		}
	}
}

// BenchmarkConnect sets connections up between two pods of a bridge, from the call of the client until
// the server has accepted: without enforcement, twice, as a machine is not always as fast; with it and
// no policy; and with those of a large cluster, which isolate both. Nodes take turns. All have the
// rules of bridge-ln; br_netfilter shows frames between pods to them, or not.
func BenchmarkConnect(b *testing.B) {
	for _, shown := range []string{"0", "1"} {
		b.Run("bridge-nf-call-iptables="+shown, func(b *testing.B) { benchmarkConnect(b, shown) })
	}
}

func benchmarkConnect(b *testing.B, shown string) {
	var nodes []*node // the thread goes on to the next one, and leaves a file that holds it
	for _, name := range []string{"off", "off-again", "no-policies", "1001-policies"} {
		n := &node{lab: newLab(b), name: name, accepted: make(chan time.Time)}
		held, err := os.Open("/proc/thread-self/ns/net")
		check(b, err)
		b.Cleanup(func() { _ = held.Close() })
		for _, of := range []string{"iptables", "ip6tables"} {
			if err := lntest.Sysctl("bridge/bridge-nf-call-"+of, shown); err != nil && shown == "1" {
				b.Skip("this kernel has no br_netfilter")
			}
		}
		n.rules()
		switch name {
		case "1001-policies":
			n.e = large(b)
			n.cluster()
			n.policy("open", `{"podSelector":{},"ingress":[{"from":[{"podSelector":{}}],"ports":[{"port":4713}]}],"egress":[{"to":[{"podSelector":{}}]}]}`)
			if !n.e.isolates("10.10.0.3") {
				b.Fatal("b is not isolated")
			}
		case "no-policies":
			n.cluster()
		}
		n.accept()
		nodes = append(nodes, n)
	}
	for b.Loop() {
		for _, n := range nodes {
			check(b, lntest.In(b, n.paths["a"], n.connect))
		}
	}
	for _, n := range nodes {
		slices.Sort(n.took)
		b.ReportMetric(float64(n.took[len(n.took)/2].Nanoseconds()), "ns/"+n.name)
	}
}

// node is a lab where connections are set up.
type node struct {
	*lab
	name     string
	accepted chan time.Time
	took     []time.Duration
}

// rules has the node have those of bridge-ln for its pods.
func (n *node) rules() {
	f := nft.New()
	defer func() { _ = f.Close() }()
	network := firewall.Network{Name: "pods", Bridge: "br0"}
	for _, pod := range []string{"a", "b"} {
		_, err := f.Apply(context.Background(), network, firewall.Endpoint{
			Owner: pod, Bridge: "br0", Port: "p" + pod, Masquerade: firewall.Families{IPv4: true, IPv6: true},
			Addrs: []netip.Addr{netip.MustParseAddr(n.address(pod, "tcp4")), netip.MustParseAddr(n.address(pod, "tcp6"))},
		})
		n.must(err)
	}
}

// accept has pod b serve.
func (n *node) accept() {
	var l net.Listener
	n.must(lntest.In(n.t, n.paths["b"], func() (err error) {
		l, err = net.Listen("tcp4", fmt.Sprint(":", port+2))
		return err
	}))
	n.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n.accepted <- time.Now()
			_ = c.Close()
		}
	}()
}

// connect has pod a open connections, one after the other. The first ones find nothing in the
// processor's caches, and do not count.
func (n *node) connect() error {
	to := net.JoinHostPort(n.address("b", "tcp4"), fmt.Sprint(port+2))
	for i := range 22 {
		start := time.Now()
		c, err := net.Dial("tcp", to)
		if err != nil {
			return err
		}
		if took := (<-n.accepted).Sub(start); i > 1 {
			n.took = append(n.took, took)
		}
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	return nil
}

func (e *Enforcer) isolates(a string) bool {
	_, is := e.compiler.Compile().In[netip.MustParseAddr(a)]
	return is
}
