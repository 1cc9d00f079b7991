package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/libnet-cni/libnet/internal/overlay"
)

// leases are those of this host: what hangs by live goes when it is not heard
// of, what hangs by hold much later.
type leases struct {
	live, hold clientv3.LeaseID // 0: none
	until      int64
	keys       []wanted // that hang by them, or say where this host is
}

// Session says that this host is there and keeps saying it, and calls seen with
// all that the hosts share: at once, and whenever something has changed. It
// ends with ctx, or when contact is lost in whatever way; another call
// reads everything anew. ErrTaken says that another living host has our name
// or address.
//
// known is what this host knows by itself of networks. The part that etcd has lost, being
// restored from an older copy, is written again before seen is called. A view is Settled
// once a host that remembers the past has looked at this etcd, or all of them have had the
// time to.
func (r *Registry) Session(ctx context.Context, known func() []overlay.Known, seen func(overlay.View)) error {
	return r.within(ctx, func(c *clientv3.Client) error {
		l, err := r.announce(ctx, c)
		if err != nil {
			return err
		}
		m, err := r.read(ctx, c, l.keys...)
		if err != nil {
			return err
		}
		if m, err = r.settle(ctx, c, m, l, known()); err != nil {
			return err
		}
		m.until = l.until
		r.setCurrent(c)
		defer r.setCurrent(nil)
		return r.follow(ctx, c, m, l, seen)
	})
}

// settle does what comes before blocks may be taken, and returns etcd as it is
// then.
func (r *Registry) settle(ctx context.Context, c *clientv3.Client, m *mirror, l leases, known []overlay.Known) (*mirror, error) {
	s, changed, err := r.begin(ctx, c, m, known)
	if err == nil && !s.settled {
		changed, err = true, r.askOthers(ctx, c, l)
	}
	if err == nil && changed {
		m, err = r.read(ctx, c, l.keys...)
	}
	if err != nil {
		return nil, err
	}
	m.settling = s
	return m, nil
}

func (r *Registry) follow(ctx context.Context, c *clientv3.Client, m *mirror, l leases, seen func(overlay.View)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	renewed, lost := make(chan int64), make(chan error, 1)
	go func() { lost <- r.renew(ctx, c, l, renewed) }()
	// A member that has no leader, being cut off, ends the watch.
	watch := c.Watch(clientv3.WithRequireLeader(ctx), r.keys.all(), clientv3.WithPrefix(), clientv3.WithRev(m.revision+1))
	var late <-chan time.Time
	if m.settling.waits > 0 {
		late = time.After(m.settling.waits)
	}
	var named <-chan struct{}
	if r.names != nil {
		named = r.names.Changed()
	}
	for first := true; ; first = false {
		if err := m.spoilt(); err != nil {
			return err // the next session announces anew
		}
		m.settling.settled = m.settling.settled || !m.joining[r.conf.Self.Name]
		r.remember(m)
		if err := r.answer(ctx, c, m); err != nil {
			return err
		}
		if first || m.touched {
			seen(m.view())
		}
		if err := r.share(ctx, c, m, l, first); err != nil {
			return err
		}
		m.services.tell(r.services, first)
		select {
		case <-named:
		case <-late: // none that remembers is there
			m.settling.settled, m.touched = true, true
			if err := r.deleteAll(ctx, c, r.keys.joining(r.conf.Self.Name)); err != nil {
				return fmt.Errorf("take the question to the others back: %w", err)
			}
		case m.until = <-renewed:
			m.touched = true
			if err := r.announceAlso(ctx, c, m); err != nil {
				return err
			}
		case err := <-lost:
			return err
		case resp, open := <-watch:
			if err := m.apply(resp, open); err != nil {
				return err
			}
			for more := true; more; { // what is there already is one change with it
				select {
				case resp, open := <-watch:
					if err := m.apply(resp, open); err != nil {
						return err
					}
				default:
					more = false
				}
			}
		}
	}
}

// apply takes over changes. The error says that some may have been missed.
func (m *mirror) apply(resp clientv3.WatchResponse, open bool) error {
	switch {
	case !open:
		return errors.New("watch ended")
	case resp.Err() != nil:
		return fmt.Errorf("watch: %w", resp.Err())
	}
	m.revision = max(m.revision, resp.Header.Revision)
	for _, e := range resp.Events {
		if e.Type == mvccpb.Event_DELETE {
			m.drop(string(e.Kv.Key))
			m.noteOwn(string(e.Kv.Key), nil, e.Kv.ModRevision)
		} else {
			m.put(e.Kv)
			m.noteOwn(string(e.Kv.Key), e.Kv, e.Kv.ModRevision)
		}
	}
	return nil
}

// renew keeps the leases, and tells until when.
func (r *Registry) renew(ctx context.Context, c *clientv3.Client, l leases, renewed chan<- int64) error {
	tick := time.NewTicker(r.conf.Live / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		until := r.conf.Uptime() + int64(r.conf.Hold.Seconds()) // as of before it is sent
		for _, id := range []clientv3.LeaseID{l.live, l.hold} {
			if id == 0 {
				until = 0
				continue
			}
			// It may take as long as until the next one: to end the session of each host whose etcd is
			// slow would have all of them read everything anew, which makes it slower.
			resp, err := keepAlive(ctx, c, id, r.conf.Live/3)
			if err == nil {
				err = r.sameEtcd(ctx, c, resp.ResponseHeader)
			}
			if err != nil {
				return fmt.Errorf("say that node %s is there: %w", r.conf.Self.Name, err)
			}
		}
		select {
		case renewed <- until:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func keepAlive(ctx context.Context, c *clientv3.Client, id clientv3.LeaseID, bound time.Duration) (*clientv3.LeaseKeepAliveResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	return c.KeepAliveOnce(ctx, id)
}

// announce writes what says that this host is there. Keys that are there already, as after
// a restart, are left as they are.
func (r *Registry) announce(ctx context.Context, c *clientv3.Client) (leases, error) {
	for range tries {
		l, ok, err := r.announceOnce(ctx, c)
		if err != nil {
			return l, fmt.Errorf("announce node %s: %w", r.conf.Self.Name, err)
		}
		if ok {
			return l, nil
		}
	}
	return leases{}, fmt.Errorf("announce node %s: others change it all the time", r.conf.Self.Name)
}

// wanted is a key as this host wants it.
type wanted struct {
	key, value string
	lease      clientv3.LeaseID
	have       *mvccpb.KeyValue // nil: missing
}

// fits says that the key is there as it is wanted.
func (w wanted) fits() bool {
	return w.have != nil && string(w.have.Value) == w.value && clientv3.LeaseID(w.have.Lease) == w.lease
}

func (w wanted) revision() int64 {
	if w.have == nil {
		return 0
	}
	return w.have.ModRevision
}

func (r *Registry) announceOnce(ctx context.Context, c *clientv3.Client) (l leases, done bool, err error) {
	self := r.conf.Self
	live := encode(liveValue{self.Name, self.Instance})
	want := []wanted{
		{key: r.keys.liveNode(self.Name), value: live},
		{key: r.keys.liveAddr(self.Address), value: live},
		{key: r.keys.holds(self.Name), value: encode(holdsValue{int64(r.conf.Hold.Seconds())})},
		{key: r.keys.node(self.Name), value: r.nodeValue()},
	}
	var gets []clientv3.Op
	for _, w := range want {
		gets = append(gets, clientv3.OpGet(w.key))
	}
	got, err := ask(ctx, c, gets...)
	if err != nil {
		return l, false, err
	}
	for i, resp := range got.Responses {
		if kvs := resp.GetResponseRange().Kvs; len(kvs) > 0 {
			want[i].have = kvs[0]
		}
	}
	if err := r.refuseTaken(want[0], want[1]); err != nil {
		return l, false, err
	}
	before := want[0].have
	if moved(want[3].have, self.Address) {
		before = nil // the lease of the old address is to end
	}
	if l, err = r.lease(ctx, c, before, want[2].have); err != nil {
		return l, false, err
	}
	want[0].lease, want[1].lease, want[2].lease = l.live, l.live, l.hold
	l.keys = want
	var when []clientv3.Cmp
	var puts []clientv3.Op
	for _, w := range want {
		when = append(when, unchanged(w.key, w.revision()))
		if !w.fits() {
			puts = append(puts, clientv3.OpPut(w.key, w.value, clientv3.WithLease(w.lease)))
		}
	}
	resp, err := txn(ctx, c, when, puts, nil)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return l, false, nil // it ran out meanwhile
	}
	return l, err == nil && resp.Succeeded, err
}

// nodeValue is what the others are told of this host.
func (r *Registry) nodeValue() string {
	v := nodeValue{Address: r.conf.Self.Address, Version: r.conf.Self.Version}
	if r.conf.Also != nil {
		v.Also = r.conf.Also()
	}
	return encode(v)
}

// announceAlso tells the others of addresses that this host got, or lost, meanwhile.
func (r *Registry) announceAlso(ctx context.Context, c *clientv3.Client, m *mirror) error {
	key, now := r.keys.node(r.conf.Self.Name), r.nodeValue()
	w := m.own[key]
	if w.value == now {
		return nil
	}
	resp, err := txn(ctx, c, []clientv3.Cmp{unchanged(key, w.revision())}, []clientv3.Op{clientv3.OpPut(key, now)}, nil)
	if err != nil {
		return fmt.Errorf("tell the addresses of node %s: %w", r.conf.Self.Name, err)
	}
	if resp.Succeeded { // else another one changed it, and the watch tells
		w.value, w.have = now, &mvccpb.KeyValue{Key: []byte(key), Value: []byte(now), ModRevision: resp.Header.Revision}
		m.own[key] = w
	}
	return nil
}

// moved says that a host had another address.
func moved(kv *mvccpb.KeyValue, now netip.Addr) bool {
	var v nodeValue
	return kv != nil && json.Unmarshal(kv.Value, &v) == nil && v.Address != now
}

// refuseTaken says whether another living host has our name or address.
func (r *Registry) refuseTaken(name, address wanted) error {
	for _, w := range []wanted{name, address} {
		if w.have == nil {
			continue
		}
		var v liveValue
		if err := json.Unmarshal(w.have.Value, &v); err != nil {
			return fmt.Errorf("key %s: %w", w.key, err)
		}
		switch {
		case v.Instance == r.conf.Self.Instance:
		case w.key == name.key:
			return fmt.Errorf("%w: there is a living node of that name (instance %s); give this one another by --node-name, or wait until the other is forgotten", overlay.ErrTaken, v.Instance)
		default:
			return fmt.Errorf("%w: the living node %s (instance %s) has the address %s; see --node-address", overlay.ErrTaken, v.Node, v.Instance, r.conf.Self.Address)
		}
	}
	return nil
}

// lease takes up the leases of the keys that are there, or makes others.
func (r *Registry) lease(ctx context.Context, c *clientv3.Client, live, hold *mvccpb.KeyValue) (l leases, err error) {
	if l.live, err = r.leaseOf(ctx, c, live, r.conf.Live); err != nil || r.conf.Hold == 0 {
		return l, err
	}
	l.until = r.conf.Uptime() + int64(r.conf.Hold.Seconds()) // as of before it is sent
	l.hold, err = r.leaseOf(ctx, c, hold, r.conf.Hold)
	return l, err
}

func (r *Registry) leaseOf(ctx context.Context, c *clientv3.Client, kv *mvccpb.KeyValue, d time.Duration) (clientv3.LeaseID, error) {
	seconds := int64(d.Seconds())
	if kv != nil && kv.Lease != 0 {
		resp, err := keepAlive(ctx, c, clientv3.LeaseID(kv.Lease), min(patience, r.conf.Live/3))
		if err == nil && resp.TTL == seconds {
			return clientv3.LeaseID(kv.Lease), nil
		}
		if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return 0, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp, err := c.Grant(ctx, seconds)
	if err != nil {
		return 0, err
	}
	return resp.ID, nil
}
