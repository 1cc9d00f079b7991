package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/libnet-cni/libnet/internal/overlay"
)

// DefaultPrefix is of all our keys.
const DefaultPrefix = "/libnet/v1"

// ErrApart says that there is no session with etcd at the moment.
var ErrApart = errors.New("not in touch with etcd")

// Config is how etcd is reached, and as which host.
type Config struct {
	// Endpoints are the URLs of etcd's members, as "https://192.0.2.1:2379".
	Endpoints []string
	// TLS makes the configuration for a new session, so that a renewed
	// certificate is taken; nil: none.
	TLS func() (*tls.Config, error)
	// User and Password; empty: none.
	User, Password string
	// Prefix of all keys; empty: DefaultPrefix.
	Prefix string
	// Self is this host.
	Self Self
	// Live is after how long without a word the others take this host for absent,
	// and Hold for how long its blocks stay its own then; 0: for ever. Both are
	// in whole seconds.
	Live, Hold time.Duration
	// Also returns other addresses of this host than that of Self; nil: there are none.
	Also func() []netip.Addr
	// Uptime is the clock of overlay.View.Until.
	Uptime func() int64
}

// Self is what a host says of itself.
type Self struct {
	Name    string
	Address netip.Addr
	// Instance tells this host from another one that has the name or the address
	// by mistake; it is the same after a restart of the agent.
	Instance string
	Version  string
}

// Registry talks to etcd. It may be used by many goroutines.
type Registry struct {
	conf  Config
	keys  keys
	names Names // nil: none

	services Services // nil: none

	mu     sync.Mutex
	client *clientv3.Client // of the session; nil: none
	last   overlay.Moment   // at which etcd was seen with all that there is
}

// New touches nothing.
func New(c Config) *Registry {
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	return &Registry{conf: c, keys: keys{c.Prefix}}
}

// Exchange has names of containers exchanged in each session that begins from now on.
func (r *Registry) Exchange(n Names) { r.names = n }

const (
	// patience is how long a single request may take.
	patience = 3 * time.Second
	// A connection over which nothing comes is asked, and given up.
	pingEvery, pingWait = 10 * time.Second, 3 * time.Second
	// window is how much of an answer may be under way: what all hosts share comes as one.
	window = 4 << 20
	// tries bounds how often a transaction is tried again that others were
	// faster with.
	tries = 20
)

// open makes a client. It waits for etcd only if there is a user.
func (r *Registry) open(ctx context.Context) (*clientv3.Client, error) {
	c := clientv3.Config{
		Context: ctx, Endpoints: r.conf.Endpoints, Username: r.conf.User, Password: r.conf.Password,
		DialTimeout: patience, DialKeepAliveTime: pingEvery, DialKeepAliveTimeout: pingWait, PermitWithoutStream: true,
		Logger: zap.NewNop(), // what it has to say it returns
		// Windows of a fixed size: else a ping answers each change that comes, to measure the way,
		// and doubles what etcd has to do for a change that goes to all hosts.
		DialOptions: []grpc.DialOption{grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window)},
	}
	if r.conf.TLS != nil {
		var err error
		if c.TLS, err = r.conf.TLS(); err != nil {
			return nil, err
		}
	}
	client, err := clientv3.New(c)
	if err != nil {
		return nil, fmt.Errorf("etcd %v: %w", r.conf.Endpoints, err)
	}
	return client, nil
}

// within calls fn with a client of its own. Where no answer comes, the error says
// of each endpoint why: *UnreachableError.
func (r *Registry) within(ctx context.Context, fn func(*clientv3.Client) error) error {
	return r.explain(ctx, r.withClient(ctx, fn))
}

func (r *Registry) withClient(ctx context.Context, fn func(*clientv3.Client) error) (err error) {
	client, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := client.Close(); !errors.Is(closeErr, context.Canceled) {
			err = errors.Join(err, closeErr)
		}
	}()
	return fn(client)
}

// current returns the session's client.
func (r *Registry) current() (*clientv3.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client == nil {
		return nil, ErrApart
	}
	return r.client, nil
}

func (r *Registry) setCurrent(c *clientv3.Client) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.client = c
}

// ask sends requests that are answered at one revision.
func ask(ctx context.Context, c *clientv3.Client, ops ...clientv3.Op) (*clientv3.TxnResponse, error) {
	return txn(ctx, c, nil, ops, nil)
}

func txn(ctx context.Context, c *clientv3.Client, when []clientv3.Cmp, then, otherwise []clientv3.Op) (*clientv3.TxnResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return c.Txn(ctx).If(when...).Then(then...).Else(otherwise...).Commit()
}

// unchanged is true while a key's last change is the one at a revision; 0: while
// there is no such key.
func unchanged(key string, revision int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(key), "=", revision)
}

// read returns all there is, and notes of the keys in own how they are.
func (r *Registry) read(ctx context.Context, c *clientv3.Client, own ...wanted) (*mirror, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*patience)
	defer cancel()
	got, err := c.Get(ctx, r.keys.all(), clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", r.keys.all(), err)
	}
	m := newMirror(r.keys)
	if len(own) > 0 {
		m.self = r.conf.Self.Name
	}
	for _, w := range own {
		w.have = nil
		m.own[w.key] = w
	}
	m.revision, m.cluster = got.Header.Revision, clusterName(got.Header.ClusterId)
	for _, kv := range got.Kvs {
		m.put(kv)
		m.noteOwn(string(kv.Key), kv, kv.ModRevision)
	}
	return m, nil
}

// View reads what the hosts share, once. It needs no session.
func (r *Registry) View(ctx context.Context) (v overlay.View, err error) {
	err = r.within(ctx, func(c *clientv3.Client) error {
		// All there is may take long to read; that there is something, not.
		if _, err := ask(ctx, c, clientv3.OpGet(r.keys.all(), clientv3.WithPrefix(), clientv3.WithCountOnly())); err != nil {
			return fmt.Errorf("read %s: %w", r.keys.all(), err)
		}
		m, err := r.read(ctx, c)
		if err == nil {
			v = m.view()
		}
		return err
	})
	return v, err
}
