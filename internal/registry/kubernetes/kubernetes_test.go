package kubernetes

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/libnet-cni/libnet/internal/overlay"
)

// said is the annotation of a host with the network pods; more changes it.
func said(t *testing.T, address string, more func(*network)) string {
	t.Helper()
	n := network{}
	n.setTerms(overlay.Terms{
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd66::/48")},
		Size:    overlay.BlockSize{IPv4: 24, IPv6: 64}, VNI: 5000, Port: 4789,
	})
	if more != nil {
		more(&n)
	}
	text, err := announcement{Address: netip.MustParseAddr(address), Agent: "v1", Networks: map[string]network{"pods": n}}.encode()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// nodeNamed returns a Node as the API has it.
func nodeNamed(name, address, annotation string, podCIDRs ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Spec.PodCIDRs = podCIDRs
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: address}}
	if annotation != "" {
		n.Annotations = map[string]string{OverlayAnnotation: annotation}
	}
	return n
}

func viewOf(self string, all ...*corev1.Node) overlay.View {
	nodes := map[string]*node{}
	for _, n := range all {
		nodes[n.Name] = newNode(reduce(n), nil)
	}
	return view(nodes, self)
}

func hostsOf(v overlay.View) (names []string) {
	hosts, problems := v.Hosts("pods")
	for _, h := range hosts {
		names = append(names, h.Name)
	}
	return append(names, problems...)
}

// A host is in a network by its podCIDRs, once it has announced the same terms; what keeps one out
// is said.
func TestView(t *testing.T) {
	m1 := nodeNamed("m1", "192.0.2.1", said(t, "192.0.2.1", nil), "10.244.1.0/24", "fd66:0:0:1::/64")
	with := func(change func(*corev1.Node)) *corev1.Node {
		n := nodeNamed("w2", "192.0.2.2", said(t, "192.0.2.2", nil), "10.244.2.0/24", "fd66:0:0:2::/64")
		change(n)
		return n
	}
	for name, tt := range map[string]struct {
		other   *corev1.Node
		hosts   string
		problem string
	}{
		"well":           {with(func(*corev1.Node) {}), "m1 w2", ""},
		"no agent yet":   {with(func(n *corev1.Node) { n.Annotations = nil }), "m1", ""},
		"no podCIDR yet": {with(func(n *corev1.Node) { n.Spec.PodCIDRs = nil }), "m1", ""},
		"one family":     {with(func(n *corev1.Node) { n.Spec.PodCIDRs = n.Spec.PodCIDRs[:1] }), "m1 w2", ""},
		"evicted":        {with(func(n *corev1.Node) { n.Annotations[EvictedAnnotation] = "" }), "m1", ""},
		"no annotation":  {with(func(n *corev1.Node) { n.Annotations[OverlayAnnotation] = "{" }), "m1", "node w2: annotation libnet-cni.dev/overlay: "},
		"newer":          {with(func(n *corev1.Node) { n.Annotations[OverlayAnnotation] = `{"version":2}` }), "m1", "is that node's ln-agent newer"},
		"another VNI": {with(func(n *corev1.Node) {
			n.Annotations[OverlayAnnotation] = said(t, "192.0.2.2", func(n *network) { n.VNI = 7 })
		}), "m1", "node w2: network pods: differs from what the network's hosts agreed on: vni: 5000 here, 7 by w2"},
		"a foreign place": {with(func(n *corev1.Node) { n.Annotations[OverlayAnnotation] = said(t, "192.0.2.1", nil) }), "m1", "its agent has the address 192.0.2.1, which is none of its InternalIPs [192.0.2.2]"},
		"a place by hand": {with(func(n *corev1.Node) { n.Annotations[AddressAnnotation] = "192.0.2.99" }), "m1 w2", ""},
		"bad place":       {with(func(n *corev1.Node) { n.Annotations[AddressAnnotation] = "here" }), "m1", `libnet-cni.dev/address: "here" is no address`},
		"same podCIDR":    {with(func(n *corev1.Node) { n.Spec.PodCIDRs = slices.Clone(m1.Spec.PodCIDRs) }), "m1", "nodes m1 and w2 have the same podCIDR 10.244.1.0/24"},
		"bad podCIDR":     {with(func(n *corev1.Node) { n.Spec.PodCIDRs = []string{"x"} }), "m1", `node w2: podCIDR "x" is no prefix`},
	} {
		v := viewOf("m1", m1, tt.other)
		if got := strings.Join(hostsOf(v), " "); got != tt.hosts {
			t.Errorf("%s: hosts %s, want %s", name, got, tt.hosts)
		}
		if got := strings.Join(v.Problems, "\n"); !strings.Contains(got, tt.problem) || (tt.problem == "") != (got == "") {
			t.Errorf("%s: problems %q, want %q", name, got, tt.problem)
		}
	}
	if v := viewOf("m3", m1); len(v.Problems) != 1 || !strings.Contains(v.Problems[0], `there is no Node "m3"`) {
		t.Errorf("problems %q of a host without a Node", v.Problems)
	}
}

// The keys of a network are of the newest epoch that any host began.
func TestViewKeys(t *testing.T) {
	keyed := func(address string, epoch, sends int) string {
		return said(t, address, func(n *network) {
			n.Encryption, n.Epoch, n.Sends, n.Keys = "wireguard", epoch, sends, []overlay.EpochKey{{Epoch: sends, Port: 61440}}
		})
	}
	v := viewOf("m1", nodeNamed("m1", "192.0.2.1", keyed("192.0.2.1", 0, 1), "10.244.1.0/24"), nodeNamed("w2", "192.0.2.2", keyed("192.0.2.2", 2, 1), "10.244.2.0/24"))
	s := v.Networks["pods"]
	if s.Epoch.Epoch != 2 || s.Epoch.By != "w2" || s.Keys["m1"].Sends != 1 || len(s.Keys["w2"].Keys) != 1 {
		t.Errorf("got %+v and %+v", s.Epoch, s.Keys)
	}
}

// Of a Node's protobuf what is kept is as it was, and the rest is left out.
func TestUnmarshal(t *testing.T) {
	n := nodeNamed("m1", "192.0.2.1", said(t, "192.0.2.1", nil), "10.244.1.0/24", "fd66:0:0:1::/64")
	n.UID, n.ResourceVersion, n.CreationTimestamp = "u", "7", metav1.Unix(1700000000, 0)
	want := reduce(n)
	n.Labels = map[string]string{"a": "b"}
	n.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubelet", FieldsV1: metav1.NewFieldsV1("{}")}}
	n.Spec.Taints = []corev1.Taint{{Key: "k"}}
	n.Status.Conditions = []corev1.NodeCondition{{Type: "Ready", LastHeartbeatTime: metav1.Unix(1700000000, 0), Message: "m"}}
	n.Status.Images = []corev1.ContainerImage{{Names: []string{"x"}, SizeBytes: 1}}
	data, err := n.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var got Node
	if err := got.Unmarshal(data); err != nil {
		t.Fatal(err)
	}
	if len(got.Labels)+len(got.ManagedFields)+len(got.Spec.Taints)+len(got.Status.Images) > 0 || got.Status.Conditions[0] != (corev1.NodeCondition{Type: "Ready"}) {
		t.Errorf("more was decoded than is kept: %+v", got)
	}
	text := func(n *corev1.Node) string {
		data, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	if s := text(nodeOf(&got)); s != text(want) {
		t.Errorf("got  %s\nwant %s", s, text(want))
	}
	for cut := range data {
		_ = got.Unmarshal(data[:cut]) // must not panic
	}
}

// A heartbeat is no news; each thing that is kept is.
func TestHeartbeat(t *testing.T) {
	s := newNodes()
	m1 := nodeNamed("m1", "192.0.2.1", said(t, "192.0.2.1", nil), "10.244.1.0/24")
	if err := s.Replace([]any{m1}, "1"); err != nil {
		t.Fatal(err)
	}
	_, before, _ := s.state()
	beat := m1.DeepCopy()
	beat.ResourceVersion, beat.Status.Conditions = "2", []corev1.NodeCondition{{Type: "Ready"}}
	for _, err := range []error{s.Update(beat), s.Replace([]any{beat}, "2")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, now, _ := s.state(); now != before {
		t.Error("a heartbeat is news")
	}
	for i, change := range []func(*corev1.Node){
		func(n *corev1.Node) { n.Annotations[OverlayAnnotation] = "" },
		func(n *corev1.Node) { n.Annotations[AddressAnnotation] = "192.0.2.9" },
		func(n *corev1.Node) { n.Annotations[EvictedAnnotation] = "" },
		func(n *corev1.Node) { n.Spec.PodCIDRs = nil },
		func(n *corev1.Node) { n.Status.Addresses[1].Address = "192.0.2.8" },
	} {
		_, before, _ := s.state()
		changed := s.all["m1"]
		n := m1.DeepCopy()
		change(n)
		if err := s.Update(n); err != nil {
			t.Fatal(err)
		}
		if _, now, _ := s.state(); now == before {
			t.Errorf("change %d is no news", i)
		}
		s.all["m1"] = changed
	}
}

// A host reads from an annotation what another one wrote there.
func TestAnnouncement(t *testing.T) {
	text := said(t, "2001:db8::1", func(n *network) { n.Epoch, n.Sends = 3, 2 })
	got, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	again, err := got.encode()
	if err != nil || again != text {
		t.Errorf("%v: got %s\nwant %s", err, again, text)
	}
	for _, want := range []string{`"version":1`, `"address":"2001:db8::1"`, `"blockSize":{"ipv4":24,"ipv6":64}`, `"vni":5000`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s: want %s in it", text, want)
		}
	}
	if s := fmt.Sprint(got.Networks["pods"].terms("m1", got.Address).IPv6); s != "true" {
		t.Error("the family of the hosts' addresses is lost")
	}
}
