package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/libnet-cni/libnet/internal/overlay"
)

// Config is how the API is reached, and as which Node.
type Config struct {
	// REST is how the API is reached; it is not changed.
	REST *rest.Config
	// Node is the name of this host's Node.
	Node string
	// Address at which other hosts reach this one, and Version of the agent.
	Address netip.Addr
	Version string
}

// Registry talks to the API. It may be used by many goroutines.
type Registry struct {
	conf   Config
	client *rest.RESTClient
	nodes  *nodes
	begin  sync.Once

	writing sync.Mutex    // held while the annotation is changed
	said    *announcement // what this host said last; nil: nothing yet
}

const (
	// patience is how long a single request may take.
	patience = 10 * time.Second
	// A watch that fails is begun again after soonest, and later after latest at most.
	soonest, latest = 200 * time.Millisecond, 5 * time.Second
	fieldManager    = "ln-agent"
)

// New asks nothing of the API.
func New(c Config) (*Registry, error) {
	client, err := clientOf(c, "/api", &corev1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	return &Registry{conf: c, client: client, nodes: newNodes()}, nil
}

// follow has the nodes kept until ctx ends.
func (r *Registry) follow(ctx context.Context) {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list := &corev1.NodeList{}
			err := r.client.Get().Resource("nodes").VersionedParams(&o, metav1.ParameterCodec).Do(ctx).Into(list)
			r.note(ctx, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.Watch = true
			w, err := r.client.Get().Resource("nodes").VersionedParams(&o, metav1.ParameterCodec).Watch(ctx)
			r.note(ctx, err)
			return w, err
		},
	}
	const growth, steps = 2, 10
	silent := klog.Logger{} // what there is to say, Session returns
	cache.NewReflectorWithOptions(lw, &Node{}, r.nodes, cache.ReflectorOptions{
		Logger: &silent, Name: fieldManager,
		Backoff: &wait.Backoff{Duration: soonest, Factor: growth, Jitter: 1, Steps: steps, Cap: latest},
	}).RunWithContext(klog.NewContext(ctx, silent))
}

// note takes over whether the API was heard. That a watch has to be begun anew is no trouble.
func (r *Registry) note(ctx context.Context, err error) {
	if ctx.Err() != nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || apierrors.IsInvalid(err) {
		return
	}
	if err != nil {
		err = fmt.Errorf("nodes of %s: %w", r.conf.REST.Host, err)
	}
	r.nodes.note(err)
}

// Session calls seen with all that the hosts share: at once, and whenever something has changed. It
// ends with ctx, or when the API is not heard any more. What is known of the Nodes is kept then, and
// another call goes on from there. The Nodes are followed until the ctx of the first call ends. Nothing
// that a host remembers is needed, so known is not called.
func (r *Registry) Session(ctx context.Context, _ func() []overlay.Known, seen func(overlay.View)) error {
	r.begin.Do(func() { go r.follow(ctx) })
	if err := r.nodes.await(ctx, patience); err != nil {
		return err
	}
	for told := -1; ; {
		_, version, trouble := r.nodes.state()
		if trouble != nil {
			return trouble
		}
		if version != told {
			told = version
			seen(r.nodes.view(r.conf.Node))
			if err := r.putBack(ctx); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.nodes.changed:
		}
	}
}

// putBack writes the annotation again that others removed or changed. One that has not come back
// yet looks the same; to write it again changes nothing.
func (r *Registry) putBack(ctx context.Context) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	own := r.nodes.own(r.conf.Node)
	if r.said == nil || own == nil {
		return nil
	}
	text, err := r.said.encode()
	if err != nil || text == own.text {
		return err
	}
	return r.write(ctx, &text)
}

// say changes what this host says of itself.
func (r *Registry) say(ctx context.Context, change func(*announcement) error) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	var now announcement
	if r.said != nil {
		now = r.said.clone()
	} else if own := r.nodes.own(r.conf.Node); own != nil {
		now = own.said.clone()
	} else {
		return fmt.Errorf("there is no Node %q", r.conf.Node)
	}
	now.Address, now.Agent = r.conf.Address, r.conf.Version
	if err := change(&now); err != nil {
		return err
	}
	text, err := now.encode()
	if err != nil {
		return err
	}
	if err := r.write(ctx, &text); err != nil {
		return err
	}
	r.said = &now
	return nil
}

// write writes the annotation of this host's Node; nil removes it.
func (r *Registry) write(ctx context.Context, text *string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]*string{OverlayAnnotation: text}}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = r.client.Patch(types.MergePatchType).Resource("nodes").Name(r.conf.Node).Param("fieldManager", fieldManager).Body(patch).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("annotate node %s: %w", r.conf.Node, err)
	}
	return nil
}

// get reads this host's Node.
func (r *Registry) get(ctx context.Context) (*node, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	got := &Node{}
	err := r.client.Get().Resource("nodes").Name(r.conf.Node).Do(ctx).Into(got)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("%w %q: --node-name has to be the name that kubelet registers", ErrNoNode, r.conf.Node)
	case err != nil:
		return nil, fmt.Errorf("node %s of %s: %w", r.conf.Node, r.conf.REST.Host, err)
	}
	return newNode(nodeOf(got), nil), nil
}

// ErrNoNode says that this host has no Node in the cluster.
var ErrNoNode = errors.New("there is no Node")

// Address is where other hosts reach this host's Node: its annotation AddressAnnotation, or its first
// InternalIP. ErrNoNode: there is none.
func (r *Registry) Address(ctx context.Context) (netip.Addr, error) {
	n, err := r.get(ctx)
	if err != nil {
		return netip.Addr{}, err
	}
	n.said.Address = netip.Addr{} // it may be of before the host had another one
	a, problem := n.address()
	if problem != "" {
		return a, errors.New(problem)
	}
	return a, nil
}

// At sets the address at which other hosts reach this one, before the first session.
func (r *Registry) At(a netip.Addr) { r.conf.Address = a }
