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

	"github.com/libnet-cni/libnet/internal/lntest"
)

// A large cluster: 100 namespaces of 100 pods in ten applications, ten policies in each namespace, and
// 110 of the pods on this node, as many as kubelet has by default.
const (
	largeSpaces, largePods, largePolicies, largeLocal = 100, 100, 10, 110
)

func largePod(ns, i int) *corev1.Pod {
	p := apiPod(fmt.Sprint("n", ns), fmt.Sprint("p", i), fmt.Sprint(ns, "-", i), fmt.Sprintf("10.%d.%d.2", 20+ns, i), fmt.Sprintf("fd10:%x:%x::2", ns, i))
	p.Labels = map[string]string{"app": fmt.Sprint("app", i%10), "pod": p.Name}
	if p.Spec.NodeName = "other"; (ns*largePods+i)%(largeSpaces*largePods/largeLocal) == 0 {
		p.Spec.NodeName = "m1"
	}
	return p
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

// Connections are set up between two pods of a node, without a table, with one, and with one that has
// the policies of a large cluster, and isolates both: in turn, as a machine is not always as fast.
func BenchmarkConnect(b *testing.B) {
	var labs []*lab // each is a node; the thread goes on to the next one, and leaves a file that holds it
	node := func() *lab {
		l := newLab(b)
		held, err := os.Open("/proc/thread-self/ns/net")
		check(b, err)
		b.Cleanup(func() { _ = held.Close() })
		labs = append(labs, l)
		return l
	}
	node()
	node().cluster()
	l := node()
	l.e = large(b)
	l.cluster()
	l.policy("open", `{"podSelector":{},"ingress":[{"from":[{"podSelector":{}}],"ports":[{"port":4713}]}],"egress":[{"to":[{"podSelector":{}}]}]}`)
	if !l.e.isolates("10.10.0.3") {
		b.Fatal("b is not isolated")
	}
	for _, l := range labs {
		l.echo("b", port+2)
	}
	took := make([][]time.Duration, len(labs))
	for b.Loop() {
		for i, l := range labs {
			check(b, lntest.In(b, l.paths["a"], func() error {
				for range 20 {
					start := time.Now()
					c, err := net.Dial("tcp", net.JoinHostPort(l.address("b", "tcp4"), fmt.Sprint(port+2)))
					if err != nil {
						return err
					}
					took[i] = append(took[i], time.Since(start))
					_ = c.(*net.TCPConn).SetLinger(0)
					_ = c.Close()
				}
				return nil
			}))
		}
	}
	for i, name := range []string{"none", "no-policies", "1001-policies"} {
		slices.Sort(took[i])
		b.ReportMetric(float64(took[i][len(took[i])/2].Nanoseconds()), "ns/connect-"+name)
	}
}

func (e *Enforcer) isolates(a string) bool {
	_, is := e.compiler.Compile().In[netip.MustParseAddr(a)]
	return is
}
