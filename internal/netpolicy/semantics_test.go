package netpolicy

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// cluster is what the official tests of NetworkPolicies run in: namespaces x, y and z, with pods a, b
// and c in each, which have the ports 80 and 81 of each protocol, with names.
func cluster() *Compiler {
	c := New()
	for i, ns := range []string{"x", "y", "z"} {
		c.SetNamespace(ns, map[string]string{"ns": ns, "kubernetes.io/metadata.name": ns})
		for j, pod := range []string{"a", "b", "c"} {
			c.SetPod(Pod{Key: Key{ns, pod}, Labels: map[string]string{"pod": pod}, Local: true, Addrs: []netip.Addr{address(ns, pod), netip.AddrFrom16([16]byte{0xfd, 14: byte(i), 15: byte(j + 1)})},
				Ports: []Port{{"serve-80-tcp", firewall.TCP, 80}, {"serve-81-tcp", firewall.TCP, 81}, {"serve-80-udp", firewall.UDP, 80}, {"serve-80-sctp", firewall.SCTP, 80}}})
		}
	}
	return c
}

// address is the IPv4 address of a pod of the cluster.
func address(ns, pod string) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 0, ns[0] - 'x', pod[0] - 'a' + 1})
}

var outside = netip.MustParseAddr("192.0.2.7")

// apply has a policy of namespace x be as JSON says.
func apply(t testing.TB, c *Compiler, name, spec string) {
	t.Helper()
	p := &networkingv1.NetworkPolicy{}
	p.Namespace, p.Name = "x", name
	d := json.NewDecoder(strings.NewReader(spec))
	d.DisallowUnknownFields()
	if err := d.Decode(&p.Spec); err != nil {
		t.Fatal(err)
	}
	if err := c.SetPolicy(p); err != nil {
		t.Fatal(err)
	}
}

// passes says what the kernel does with a packet of a connection: as the rules of package admit.
func (r *Rules) passes(from, to netip.Addr, protocol firewall.Protocol, port uint16) bool {
	if from == to {
		return true
	}
	judge := func(target Class, isolated bool, other netip.Addr) bool {
		if !isolated {
			return true
		}
		peers := []Class{0}
		if c, there := r.Peers.At(other); there {
			peers = append(peers, c)
		}
		if _, there := r.Pods.At(other); there {
			peers = append(peers, AnyPod)
		}
		for _, s := range r.Ranges {
			if s.From.Compare(other) <= 0 && other.Compare(s.To) <= 0 {
				peers = append(peers, s.Class)
			}
		}
		return slices.ContainsFunc(peers, func(c Class) bool {
			p := r.Allowed[Pair{target, c}]
			return p == AllPorts || slices.ContainsFunc(r.Ports[p], func(s Span) bool { return s.Protocol == protocol && s.From <= port && port <= s.To })
		})
	}
	out, isOut := r.Out[from]
	in, isIn := r.In[to]
	return judge(out, isOut, to) && judge(in, isIn, from)
}

// peers are texts "x/a", or "x/*", "*" and "out" for an address that is no pod's.
func peers(t testing.TB, text string) (all []netip.Addr) {
	t.Helper()
	for _, ns := range []string{"x", "y", "z"} {
		for _, pod := range []string{"a", "b", "c"} {
			if text == "*" || text == ns+"/*" || text == ns+"/"+pod {
				all = append(all, address(ns, pod))
			}
		}
	}
	if text == "out" || text == "*" {
		all = append(all, outside)
	}
	if len(all) == 0 {
		t.Fatalf("there is no %q", text)
	}
	return all
}

// check compares all pairs: deny and but are lines "from > to", later ones have the last word.
func check(t *testing.T, c *Compiler, port uint16, lines ...string) {
	t.Helper()
	want := map[[2]netip.Addr]bool{}
	for _, line := range lines {
		words := strings.Fields(line) // "no x/a > *"
		for _, from := range peers(t, words[1]) {
			for _, to := range peers(t, words[3]) {
				want[[2]netip.Addr{from, to}] = words[0] == "no"
			}
		}
	}
	r := c.Compile()
	for _, from := range peers(t, "*") {
		for _, to := range peers(t, "*") {
			allowed := !want[[2]netip.Addr{from, to}] || from == to
			if got := r.passes(from, to, firewall.TCP, port); got != allowed {
				t.Errorf("%s to %s port %d passes: %v, want %v", from, to, port, got, allowed)
			}
		}
	}
}

// The cases are those of the official end-to-end tests (test/e2e/network/netpol of Kubernetes), in
// their order.
func TestSemantics(t *testing.T) {
	type try struct {
		port  uint16
		lines []string
	}
	on80 := func(lines ...string) []try { return []try{{80, lines}} }
	for _, tt := range []struct {
		name     string
		policies []string // of namespace x
		tries    []try
	}{
		{"default-deny-ingress", []string{`{"podSelector":{},"policyTypes":["Ingress"]}`}, on80("no * > x/*")},
		{"default-deny-all", []string{`{"podSelector":{},"policyTypes":["Ingress","Egress"]}`}, on80("no * > x/*", "no x/* > *")},
		{"pods of the namespace by podSelector", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"podSelector":{"matchLabels":{"pod":"b"}}}]}]}`},
			on80("no * > x/a", "yes x/b > x/a")},
		{"ingress for a target", []string{`{"podSelector":{}}`, `{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"podSelector":{},"namespaceSelector":{}}]}]}`},
			on80("no * > x/*", "yes x/* > x/a", "yes y/* > x/a", "yes z/* > x/a")},
		{"all namespaces", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"namespaceSelector":{}}]}]}`}, on80("no out > x/a")},
		{"another namespace by namespaceSelector", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"ns":"y"}}}]}]}`},
			on80("no * > x/a", "yes y/* > x/a")},
		{"podSelector with matchExpressions", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"podSelector":{"matchExpressions":[{"key":"pod","operator":"In","values":["b"]}]}}]}]}`},
			on80("no * > x/a", "yes x/b > x/a")},
		{"namespaceSelector with matchExpressions", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"namespaceSelector":{"matchExpressions":[{"key":"ns","operator":"In","values":["y"]}]}}]}]}`},
			on80("no * > x/a", "yes y/* > x/a")},
		{"podSelector or namespaceSelector", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"namespaceSelector":{"matchExpressions":[{"key":"ns","operator":"NotIn","values":["x"]}]}},{"podSelector":{"matchLabels":{"pod":"b"}}}]}]}`},
			on80("no x/c > x/a", "no out > x/a")},
		{"podSelector and namespaceSelector", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"namespaceSelector":{"matchExpressions":[{"key":"ns","operator":"NotIn","values":["x"]}]},"podSelector":{"matchLabels":{"pod":"b"}}}]}]}`},
			on80("no * > x/a", "yes y/b > x/a", "yes z/b > x/a")},
		{"several podSelectors and namespaceSelectors", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"namespaceSelector":{"matchExpressions":[{"key":"ns","operator":"NotIn","values":["x"]}]},"podSelector":{"matchExpressions":[{"key":"pod","operator":"In","values":["b","c"]}]}}]}]}`},
			on80("no * > x/a", "yes y/b > x/a", "yes y/c > x/a", "yes z/b > x/a", "yes z/c > x/a")},
		{"any of several podSelectors", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"podSelector":{"matchLabels":{"pod":"b"}}},{"podSelector":{"matchLabels":{"pod":"c"}}}]}]}`},
			on80("no * > x/a", "yes x/b > x/a", "yes x/c > x/a")},
		{"a pod of a different namespace", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"ns":"y"}},"podSelector":{"matchLabels":{"pod":"a"}}}]}]}`},
			on80("no * > x/a", "yes y/a > x/a")},
		{"ports", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"ns":"y"}}}],"ports":[{"port":81,"protocol":"TCP"}]}]}`},
			[]try{{81, []string{"no * > x/a", "yes y/* > x/a"}}, {80, []string{"no * > x/a"}}}},
		{"stacked policies", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"ns":"y"}}}],"ports":[{"port":81}]}]}`,
			`{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"ns":"y"}}}],"ports":[{"port":80}]}]}`},
			[]try{{81, []string{"no * > x/a", "yes y/* > x/a"}}, {80, []string{"no * > x/a", "yes y/* > x/a"}}, {82, []string{"no * > x/a"}}}},
		{"allow-all", []string{`{"podSelector":{},"ingress":[{}]}`}, []try{{80, nil}, {81, nil}}},
		{"ingress by a named port", []string{`{"podSelector":{},"ingress":[{"ports":[{"port":"serve-81-tcp"}]}]}`}, []try{{81, nil}, {80, []string{"no * > x/*"}}}},
		{"ingress from a namespace by a named port", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"ns":"y"}}}],"ports":[{"port":"serve-80-tcp","protocol":"TCP"}]}]}`},
			[]try{{80, []string{"no * > x/a", "yes y/* > x/a"}}, {81, []string{"no * > x/a"}}}},
		{"egress by a named port", []string{`{"podSelector":{},"egress":[{"ports":[{"port":"serve-80-tcp"}]}],"policyTypes":["Egress"]}`},
			[]try{{80, []string{"no x/* > out"}}, {81, []string{"no x/* > *"}}}},
		{"egress to some pods by a named port", []string{`{"podSelector":{},"egress":[{"to":[{"namespaceSelector":{"matchLabels":{"ns":"y"}}}],"ports":[{"port":"serve-80-tcp"}]}],"policyTypes":["Egress"]}`},
			[]try{{80, []string{"no x/* > *", "yes x/* > y/*"}}, {81, []string{"no x/* > *"}}}},
		{"no ingress from other namespaces", []string{`{"podSelector":{},"ingress":[{"from":[{"podSelector":{}}]}]}`}, on80("no * > x/*", "yes x/* > x/*")},
		{"no egress of a pod", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"policyTypes":["Egress"]}`}, on80("no x/a > *")},
		{"no egress of a namespace", []string{`{"podSelector":{},"policyTypes":["Egress"]}`}, on80("no x/* > *")},
		{"ingress and egress together", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"ns":"y"}},"podSelector":{"matchLabels":{"pod":"b"}}}],"ports":[{"port":80}]}],"egress":[{"to":[{"podSelector":{"matchLabels":{"pod":"b"}}}]}],"policyTypes":["Ingress","Egress"]}`},
			on80("no * > x/a", "yes y/b > x/a", "no x/a > *", "yes x/a > x/b")},
		{"the default of policyTypes with egress", []string{`{"podSelector":{},"egress":[{}]}`}, on80("no * > x/*")},
		{"egress to a pod of a different namespace", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"egress":[{"to":[{"namespaceSelector":{"matchLabels":{"ns":"y"}},"podSelector":{"matchLabels":{"pod":"a"}}}]}],"policyTypes":["Egress"]}`},
			on80("no x/a > *", "yes x/a > y/a")},
		{"any port of a protocol", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"ports":[{"protocol":"TCP"}]}]}`}, []try{{80, nil}, {65535, nil}}},
		{"ingress allow-all takes precedence", []string{`{"podSelector":{}}`, `{"podSelector":{},"ingress":[{}]}`}, on80()},
		{"egress allow-all takes precedence", []string{`{"podSelector":{},"policyTypes":["Egress"]}`, `{"podSelector":{},"egress":[{}],"policyTypes":["Egress"]}`}, on80()},
		{"egress to a CIDR", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"egress":[{"to":[{"ipBlock":{"cidr":"10.0.0.2/32"}}]}],"policyTypes":["Egress"]}`},
			on80("no x/a > *", "yes x/a > x/b")},
		{"egress to a CIDR with an exception", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"egress":[{"to":[{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.0.0.2/32"]}}]}],"policyTypes":["Egress"]}`},
			on80("no x/a > out", "no x/a > x/b")},
		{"CIDR and exception overlap", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"egress":[{"to":[{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.0.0.2/32"]}}]}],"policyTypes":["Egress"]}`,
			`{"podSelector":{"matchLabels":{"pod":"a"}},"egress":[{"to":[{"ipBlock":{"cidr":"10.0.0.2/32"}}]}],"policyTypes":["Egress"]}`}, on80("no x/a > out")},
		{"ingress from outside by CIDR", []string{`{"podSelector":{},"ingress":[{"from":[{"ipBlock":{"cidr":"192.0.2.0/24"}}]}]}`}, on80("no x/* > x/*", "no y/* > x/*", "no z/* > x/*")},
		{"everything by CIDR", []string{`{"podSelector":{},"ingress":[{"from":[{"ipBlock":{"cidr":"0.0.0.0/0","except":["10.0.1.0/24"]}}]}]}`}, on80("no y/* > x/*")},
		{"ingress and egress apart", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"egress":[{}],"policyTypes":["Egress"]}`, `{"podSelector":{"matchLabels":{"pod":"a"}},"policyTypes":["Ingress"]}`},
			on80("no * > x/a")},
		{"SCTP is not TCP", []string{`{"podSelector":{}}`, `{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"ports":[{"port":81,"protocol":"SCTP"}]}]}`}, []try{{81, []string{"no * > x/*"}}}},
		{"UDP is not TCP", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"ports":[{"port":81,"protocol":"UDP"}]}]}`}, []try{{81, []string{"no * > x/a"}}}},
		{"the namespace by its name", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"y"}}}]}]}`},
			on80("no * > x/a", "yes y/* > x/a")},
		{"all but a namespace by its name", []string{`{"podSelector":{"matchLabels":{"pod":"a"}},"egress":[{"to":[{"namespaceSelector":{"matchExpressions":[{"key":"kubernetes.io/metadata.name","operator":"NotIn","values":["y"]}]}}]}],"policyTypes":["Egress"]}`},
			on80("no x/a > y/*", "no x/a > out")},
		{"a range of ports", []string{`{"podSelector":{},"ingress":[{"ports":[{"port":80,"endPort":90},{"port":85,"endPort":100},{"port":101}]}]}`},
			[]try{{79, []string{"no * > x/*"}}, {80, nil}, {100, nil}, {101, nil}, {102, []string{"no * > x/*"}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := cluster()
			for i, p := range tt.policies {
				apply(t, c, string(rune('p'+i)), p)
			}
			for _, try := range tt.tries {
				check(t, c, try.port, try.lines...)
			}
		})
	}
}

// Policies, pods and namespaces change.
func TestChanges(t *testing.T) {
	c := cluster()
	check(t, c, 80)
	apply(t, c, "p", `{"podSelector":{},"ingress":[{}]}`)
	check(t, c, 80)
	apply(t, c, "p", `{"podSelector":{},"ingress":[]}`)
	check(t, c, 80, "no * > x/*")
	apply(t, c, "p", `{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"ns2":"updated"}}},{"podSelector":{"matchLabels":{"pod2":"updated"}}}]}]}`)
	check(t, c, 80, "no * > x/a")
	c.SetNamespace("y", map[string]string{"ns": "y", "ns2": "updated"})
	check(t, c, 80, "no * > x/a", "yes y/* > x/a")
	b := Pod{Key: Key{"x", "b"}, Local: true, Labels: map[string]string{"pod2": "updated"}, Addrs: []netip.Addr{address("x", "b")}}
	if !c.SetPod(b) || c.SetPod(b) {
		t.Error("SetPod does not tell what is news")
	}
	check(t, c, 80, "no * > x/a", "yes y/* > x/a", "yes x/b > x/a")
	b.Labels = map[string]string{"pod": "a"}
	c.SetPod(b)
	check(t, c, 80, "no * > x/a", "no * > x/b", "yes y/* > x/a", "yes y/* > x/b")
	c.DeletePod(b.Key)
	c.SetNamespace("y", nil)
	check(t, c, 80, "no * > x/a")
	if !c.DeletePolicy(Key{"x", "p"}) || c.DeletePolicy(Key{"x", "p"}) {
		t.Error("DeletePolicy does not tell what was there")
	}
	check(t, c, 80)
	if r := c.Compile(); len(maps.Collect(r.Peers.All()))+len(r.Allowed)+len(r.In)+len(r.Ranges) > 0 {
		t.Errorf("without policies there is %+v", r)
	}
	if len(c.terms) > 0 || len(c.classes.now) > 0 {
		t.Errorf("left: terms %v, classes %v", c.terms, c.classes.now)
	}
}
