package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/libnet-cni/libnet/internal/overlay"
)

// Agree says how this host has a network. A VNI of 0 is the one derived from the name. A subnet or a
// VNI that another network of this host has is ErrTaken.
func (r *Registry) Agree(ctx context.Context, name string, t overlay.Terms) error {
	if t.VNI == 0 {
		t.VNI = overlay.VNI(name)
	}
	return r.say(ctx, func(a *announcement) error {
		for _, other := range slices.Sorted(maps.Keys(a.Networks)) {
			switch n := a.Networks[other]; {
			case other == name:
			case n.overlaps(t.Subnets):
				return fmt.Errorf("network %s: subnet %v: %w: a podCIDR would be of network %s, too; see ln-agent leave", name, t.Subnets, overlay.ErrTaken, other)
			case n.VNI == t.VNI:
				return fmt.Errorf("network %s: VNI %d: %w: network %s has it: give it another one", name, t.VNI, overlay.ErrTaken, other)
			}
		}
		n := a.Networks[name]
		n.setTerms(t)
		a.Networks[name] = n
		return nil
	})
}

// Available sets the condition NetworkUnavailable of this host's Node to false, where a cloud's
// controller has set it: without, the scheduler keeps pods away.
func (r *Registry) Available(ctx context.Context) error {
	now := metav1.Now()
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{{
		Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: "LibnetIsUp",
		Message: "ln-agent connects the pods of this node", LastTransitionTime: now, LastHeartbeatTime: now,
	}}}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = r.client.Patch(types.StrategicMergePatchType).Resource("nodes").Name(r.conf.Node).SubResource("status").
		Param("fieldManager", fieldManager).Body(patch).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("condition NetworkUnavailable of node %s: %w", r.conf.Node, err)
	}
	return nil
}

// errAssigned says that blocks are not claimed here.
var errAssigned = errors.New("blocks are the podCIDRs of Nodes, which kube-controller-manager gives")

// Claim fails: blocks are assigned.
func (r *Registry) Claim(context.Context, string, overlay.Shared, overlay.Moment, netip.Prefix) error {
	return errAssigned
}

// Reclaim frees nothing: blocks go with their Nodes.
func (r *Registry) Reclaim(context.Context, overlay.View, string) ([]netip.Prefix, error) {
	return nil, nil
}

// Quiet has nothing to say: a Node stays where its agent stops.
func (r *Registry) Quiet(context.Context) error { return nil }

// SetKeys says which keys this host has of a network.
func (r *Registry) SetKeys(ctx context.Context, name string, k overlay.HostKeys) error {
	return r.ofNetwork(ctx, name, func(n *network) {
		if n.Keys, n.Sends, n.Direct = k.Keys, k.Sends, nil; len(k.Direct.MACs) > 0 {
			n.Direct = &k.Direct
		}
	})
}

// Rotate begins an epoch of a network's keys. Hosts that begin the same one at the same time begin
// one.
func (r *Registry) Rotate(ctx context.Context, name string, _ overlay.KeyEpoch, epoch int) error {
	return r.ofNetwork(ctx, name, func(n *network) { n.Epoch = max(n.Epoch, epoch) })
}

func (r *Registry) ofNetwork(ctx context.Context, name string, change func(*network)) error {
	return r.say(ctx, func(a *announcement) error {
		n, in := a.Networks[name]
		if !in {
			return fmt.Errorf("network %s: %w: this host has not announced it", name, overlay.ErrTaken)
		}
		change(&n)
		a.Networks[name] = n
		return nil
	})
}

// Evict fails: an agent may not change another host's Node.
func (r *Registry) Evict(_ context.Context, node string) error {
	return fmt.Errorf("an agent may not change the Node of another host; run: kubectl annotate node %s %s=true", node, EvictedAnnotation)
}

// Admit fails as Evict does.
func (r *Registry) Admit(_ context.Context, node string) error {
	return fmt.Errorf("an agent may not change the Node of another host; run: kubectl annotate node %s %s-", node, EvictedAnnotation)
}

// View reads the Nodes, once. It needs no session.
func (r *Registry) View(ctx context.Context) (overlay.View, error) {
	all, err := r.list(ctx)
	return view(all, r.conf.Node), err
}

func (r *Registry) list(ctx context.Context) (map[string]*node, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var got corev1.NodeList
	if err := r.client.Get().Resource("nodes").Do(ctx).Into(&got); err != nil {
		return nil, fmt.Errorf("nodes of %s: %w", r.conf.REST.Host, err)
	}
	all := make(map[string]*node, len(got.Items))
	for i := range got.Items {
		all[got.Items[i].Name] = newNode(nodeOf(&got.Items[i]), nil)
	}
	return all, nil
}

// Leave says that this host has no part in a network any more. It needs no session.
func (r *Registry) Leave(ctx context.Context, name string) error {
	return r.without(ctx, func(a *announcement) { delete(a.Networks, name) })
}

// Forget removes all that this host said.
func (r *Registry) Forget(ctx context.Context) error {
	return r.without(ctx, func(a *announcement) { clear(a.Networks) })
}

// without changes the annotation as it is in the API; one that names no network goes.
func (r *Registry) without(ctx context.Context, change func(*announcement)) error {
	own, err := r.get(ctx)
	if err != nil || own.text == "" {
		return err
	}
	now := own.said.clone()
	if change(&now); len(now.Networks) == 0 {
		return r.write(ctx, nil)
	}
	text, err := now.encode()
	if err != nil {
		return err
	}
	return r.write(ctx, &text)
}
