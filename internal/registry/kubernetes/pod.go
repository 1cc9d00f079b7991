package kubernetes

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Pod is a pod of which only what policies are about is decoded.
type Pod struct{ corev1.Pod }

var _ runtime.Object = (*Pod)(nil)

// DeepCopyObject is as of runtime.Object.
func (p *Pod) DeepCopyObject() runtime.Object { return &Pod{*p.DeepCopy()} }

// Unmarshal decodes a pod in protobuf.
func (p *Pod) Unmarshal(data []byte) error {
	data, err := keptOfPod.of(data)
	if err != nil {
		return err
	}
	return p.Pod.Unmarshal(data)
}

// keptOfPod are the numbers of k8s.io/api/core/v1 and meta/v1, generated.proto, which never change.
var keptOfPod = fields{
	// metadata: name, namespace, uid, resourceVersion, creationTimestamp, deletionTimestamp, labels, annotations
	1: {1: nil, 3: nil, 5: nil, 6: nil, 8: nil, 9: nil, 11: nil, 12: nil},
	2: {2: {6: nil}, 20: {6: nil}, 10: nil, 11: nil}, // spec: ports of containers and initContainers, nodeName, hostNetwork
	3: {1: nil, 6: nil, 12: nil},                     // status: phase, podIP, podIPs
}

// PodList are pods of which only that is decoded.
type PodList struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []Pod
}

var _ runtime.Object = (*PodList)(nil)

// DeepCopyObject is as of runtime.Object.
func (l *PodList) DeepCopyObject() runtime.Object {
	to := &PodList{TypeMeta: l.TypeMeta}
	l.DeepCopyInto(&to.ListMeta)
	for i := range l.Items {
		to.Items = append(to.Items, Pod{*l.Items[i].DeepCopy()})
	}
	return to
}

// Unmarshal decodes pods in protobuf.
func (l *PodList) Unmarshal(data []byte) error {
	data, err := fields{1: nil, 2: keptOfPod}.of(data)
	if err != nil {
		return err
	}
	var all corev1.PodList
	if err := all.Unmarshal(data); err != nil {
		return err
	}
	l.ListMeta, l.Items = all.ListMeta, make([]Pod, len(all.Items))
	for i := range all.Items {
		l.Items[i].Pod = all.Items[i]
	}
	return nil
}
