package kubernetes

import (
	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Node is a Node of which only what newNode reads is decoded: with the images, conditions and
// managedFields of every heartbeat, decoding would be most of what an agent does.
type Node struct{ corev1.Node }

var _ runtime.Object = (*Node)(nil)

// DeepCopyObject is as of runtime.Object.
func (n *Node) DeepCopyObject() runtime.Object { return &Node{*n.DeepCopy()} }

// Unmarshal decodes a Node in protobuf.
func (n *Node) Unmarshal(data []byte) error {
	data, err := kept.of(data)
	if err != nil {
		return err
	}
	return n.Node.Unmarshal(data)
}

// fields are those of a message that are kept, by number; of a value that is not nil, only these of
// that message.
type fields map[protowire.Number]fields

// kept are the numbers of k8s.io/api/core/v1 and meta/v1, generated.proto, which never change.
var kept = fields{
	1: {1: nil, 5: nil, 6: nil, 8: nil, 12: nil}, // metadata: name, uid, resourceVersion, creationTimestamp, annotations
	2: {7: nil},                                  // spec: podCIDRs
	3: {4: {1: nil, 2: nil}, 5: nil},             // status: type and status of conditions, addresses
}

// of returns what is kept of a message.
func (f fields) of(message []byte) (to []byte, err error) {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeField(message)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		field := message[:n]
		message = message[n:]
		inner, keep := f[number]
		switch {
		case !keep:
		case inner == nil || kind != protowire.BytesType:
			to = append(to, field...)
		default:
			_, _, tag := protowire.ConsumeTag(field)
			value, _ := protowire.ConsumeBytes(field[tag:])
			left, err := inner.of(value)
			if err != nil {
				return nil, err
			}
			to = protowire.AppendBytes(protowire.AppendTag(to, number, kind), left)
		}
	}
	return to, nil
}

// newScheme knows what is asked of the API, in its version v1.
func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypeWithName(corev1.SchemeGroupVersion.WithKind("Node"), &Node{})
	scheme.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.NodeList{}, &Pod{}, &PodList{}, &corev1.Namespace{}, &corev1.NamespaceList{})
	scheme.AddKnownTypes(networkingv1.SchemeGroupVersion, &networkingv1.NetworkPolicy{}, &networkingv1.NetworkPolicyList{})
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	metav1.AddToGroupVersion(scheme, networkingv1.SchemeGroupVersion)
	return scheme
}

// nodeOf returns the Node of an object that came from the API, reduced; nil: it is none.
func nodeOf(in any) *corev1.Node {
	switch n := in.(type) {
	case *Node:
		return reduce(&n.Node)
	case *corev1.Node:
		return reduce(n)
	}
	return nil
}
