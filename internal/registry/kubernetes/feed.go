package kubernetes

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// Cluster is told what NetworkPolicies are about.
type Cluster interface {
	// Each takes an object over, or forgets it.
	Namespace(of *corev1.Namespace, gone bool)
	Pod(of *corev1.Pod, gone bool)
	Policy(of *networkingv1.NetworkPolicy, gone bool)
	// Blocks are the podCIDRs of this host's Node.
	Blocks(podCIDRs []netip.Prefix)
	// Synced says that all of a kind has been told: "namespaces", "pods", "networkpolicies".
	Synced(kind string)
	// Trouble says why the API is not heard of a kind; nil: it is.
	Trouble(kind string, err error)
}

// Feed tells to of namespaces, pods and policies until ctx ends. No agent needs the rights to these but
// one that enforces policies.
func (r *Registry) Feed(ctx context.Context, to Cluster) error {
	policies, err := clientOf(r.conf, "/apis", &networkingv1.SchemeGroupVersion)
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	for _, f := range []feed{
		{kind: "namespaces", client: r.client, expect: &corev1.Namespace{}, list: func() runtime.Object { return &corev1.NamespaceList{} },
			tell: func(o any, gone bool) { to.Namespace(o.(*corev1.Namespace), gone) }},
		{kind: "pods", client: r.client, expect: &Pod{}, list: func() runtime.Object { return &PodList{} },
			tell: func(o any, gone bool) { to.Pod(&o.(*Pod).Pod, gone) }},
		{kind: "networkpolicies", client: policies, expect: &networkingv1.NetworkPolicy{}, list: func() runtime.Object { return &networkingv1.NetworkPolicyList{} },
			tell: func(o any, gone bool) { to.Policy(o.(*networkingv1.NetworkPolicy), gone) }},
	} {
		f.to, f.host, f.there = to, r.conf.REST.Host, map[string]any{}
		all.Go(func() { f.run(ctx) })
	}
	all.Go(func() { r.tellBlocks(ctx, to) })
	all.Wait()
	return ctx.Err()
}

// tellBlocks tells of the podCIDRs, which never change, once the Node has some.
func (r *Registry) tellBlocks(ctx context.Context, to Cluster) {
	for ctx.Err() == nil {
		if n, err := r.get(ctx); err == nil && len(n.podCIDRs) > 0 {
			to.Blocks(n.podCIDRs)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(latest):
		}
	}
}

// feed is one kind of objects. A reflector keeps it.
type feed struct {
	kind, host string
	client     *rest.RESTClient
	expect     runtime.Object
	list       func() runtime.Object
	tell       func(o any, gone bool)
	to         Cluster
	there      map[string]any // by namespace and name: as little as is needed to forget it
}

var _ cache.ReflectorStore = (*feed)(nil)

func (f *feed) run(ctx context.Context) {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list := f.list()
			err := f.client.Get().Resource(f.kind).VersionedParams(&o, metav1.ParameterCodec).Do(ctx).Into(list)
			f.note(ctx, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.Watch = true
			w, err := f.client.Get().Resource(f.kind).VersionedParams(&o, metav1.ParameterCodec).Watch(ctx)
			f.note(ctx, err)
			return w, err
		},
	}
	const growth, steps = 2, 10
	silent := klog.Logger{} // what there is to say, note tells
	cache.NewReflectorWithOptions(lw, f.expect, f, cache.ReflectorOptions{
		Logger: &silent, Name: fieldManager,
		Backoff: &wait.Backoff{Duration: soonest, Factor: growth, Jitter: 1, Steps: steps, Cap: latest},
	}).RunWithContext(klog.NewContext(ctx, silent))
}

// note takes over whether the API was heard. That a watch has to be begun anew is no trouble.
func (f *feed) note(ctx context.Context, err error) {
	if ctx.Err() != nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || apierrors.IsInvalid(err) {
		return
	}
	if err != nil {
		err = fmt.Errorf("%s of %s: %w", f.kind, f.host, err)
	}
	f.to.Trouble(f.kind, err)
}

func (f *feed) put(o any) error {
	key, err := cache.MetaNamespaceKeyFunc(o)
	if err != nil {
		return err
	}
	f.there[key] = f.trace(o)
	f.tell(o, false)
	return nil
}

// trace is what is kept to forget an object by.
func (f *feed) trace(o any) any {
	meta := func(m metav1.ObjectMeta) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name}
	}
	switch o := o.(type) {
	case *Pod:
		return &Pod{corev1.Pod{ObjectMeta: meta(o.ObjectMeta)}}
	case *corev1.Namespace:
		return &corev1.Namespace{ObjectMeta: meta(o.ObjectMeta)}
	case *networkingv1.NetworkPolicy:
		return &networkingv1.NetworkPolicy{ObjectMeta: meta(o.ObjectMeta)}
	}
	return o
}

// Add takes an object over.
func (f *feed) Add(o any) error { return f.put(o) }

// Update takes an object over that has changed.
func (f *feed) Update(o any) error { return f.put(o) }

// Delete forgets an object.
func (f *feed) Delete(o any) error {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o)
	if err != nil {
		return err
	}
	if was, there := f.there[key]; there {
		delete(f.there, key)
		f.tell(was, true)
	}
	return nil
}

// Replace has these objects, and no others.
func (f *feed) Replace(these []any, _ string) error {
	left := f.there
	f.there = make(map[string]any, len(these))
	for _, o := range these {
		if err := f.put(o); err != nil {
			return err
		}
	}
	for key, was := range left {
		if _, there := f.there[key]; !there {
			f.tell(was, true)
		}
	}
	f.to.Synced(f.kind)
	return nil
}

// Resync has nothing to do.
func (f *feed) Resync() error { return nil }

// clientOf returns a client of a group of the API.
func clientOf(c Config, path string, version *schema.GroupVersion) (*rest.RESTClient, error) {
	conf := rest.CopyConfig(c.REST)
	conf.APIPath, conf.GroupVersion = path, version
	conf.NegotiatedSerializer = serializer.NewCodecFactory(newScheme()).WithoutConversion()
	conf.ContentType = runtime.ContentTypeProtobuf
	conf.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	conf.UserAgent = "ln-agent/" + c.Version
	return rest.RESTClientFor(conf)
}
