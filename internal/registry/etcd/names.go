package etcd

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/libnet-cni/libnet/internal/overlay"
)

// Names are what the hosts tell each other about names of containers.
type Names interface {
	// Own returns the attachments of this host that others may find: those that changed
	// since the last call, or all of them. NamedID.Node is left empty.
	Own(all bool) []overlay.Named
	// Changed receives when Own may have more.
	Changed() <-chan struct{}
	// Others tells what other hosts have: all of it, or what changed.
	Others(these []overlay.Named, all bool)
}

// namedValue is of names/<network>/<node>/<container>:<interface>.
type namedValue struct {
	Names     []string     `json:"names"`
	Domain    string       `json:"domain,omitempty"`
	Addresses []netip.Addr `json:"addresses"`
	Well      []string     `json:"well,omitempty"`
}

func (k keys) named(id overlay.NamedID) string {
	return k.namedOf(id.Network, id.Node) + id.Container + ":" + id.IfName
}

func (k keys) namedOf(network, node string) string {
	return k.prefix + "/names/" + network + "/" + node + "/"
}

// namedID is what part of a key, as split returns it, says.
func namedID(part []string) (id overlay.NamedID, is bool) {
	if len(part) != 4 || part[0] != "names" {
		return id, false
	}
	container, ifName, is := strings.Cut(part[3], ":")
	return overlay.NamedID{Node: part[2], Network: part[1], Container: container, IfName: ifName}, is
}

// names is what a mirror has of names.
type names struct {
	all   map[overlay.NamedID]overlay.Named
	news  map[overlay.NamedID]bool // what changed since tell
	own   map[string]held          // by key, of this host
	spoil bool                     // others removed or changed one of own
}

// held is a key of this host; without a value it is being deleted.
type held struct {
	value    string
	lease    clientv3.LeaseID
	revision int64
}

func newNames() names {
	return names{all: map[overlay.NamedID]overlay.Named{}, news: map[overlay.NamedID]bool{}, own: map[string]held{}}
}

func (n *names) put(id overlay.NamedID, kv *mvccpb.KeyValue) error {
	var v namedValue
	if err := json.Unmarshal(kv.Value, &v); err != nil {
		return err
	}
	n.all[id] = overlay.Named{NamedID: id, Names: v.Names, Domain: v.Domain, Addresses: v.Addresses, Well: v.Well}
	n.news[id] = true
	return nil
}

func (n *names) drop(id overlay.NamedID) {
	delete(n.all, id)
	n.news[id] = true
}

// note takes over how a key of this host is, unless a later state of it is known.
func (n *names) note(key string, now held) (news bool) {
	before := n.own[key]
	if before.revision >= now.revision {
		if now.value == "" && before.value == "" {
			delete(n.own, key) // deleted, and told so
		}
		return false
	}
	if n.own[key] = now; now.value == "" {
		delete(n.own, key)
	}
	return true
}

// tell hands on what other hosts have: all of it, or what changed.
func (n *names) tell(to Names, self string, all bool) {
	var these []overlay.Named
	if all {
		clear(n.news)
		for id := range n.all {
			n.news[id] = true
		}
	}
	for id := range n.news {
		if id.Node != self {
			one := n.all[id]
			one.NamedID = id
			these = append(these, one)
		}
	}
	n.news = map[overlay.NamedID]bool{} // one with room for all would be gone through at each change
	if all || len(these) > 0 {
		to.Others(these, all)
	}
}

// noteOwn looks at a change of a key; kv is nil if it is deleted.
func (m *mirror) noteOwn(key string, kv *mvccpb.KeyValue, revision int64) {
	if m.self == "" {
		return
	}
	id, is := namedID(m.keys.split(key))
	if !is || id.Node != m.self {
		return
	}
	now := held{revision: revision}
	if kv != nil {
		now.value, now.lease = string(kv.Value), clientv3.LeaseID(kv.Lease)
	}
	if m.names.note(key, now) {
		m.names.spoil = true
	}
}

// isApart says that a key, as split returns it, is of names or of services, which are no part of a
// view.
func isApart(part []string) bool {
	_, is := namedID(part)
	return is || isService(part) || part[0] == "vips"
}

// share tells and hears names: of this host those that changed, or all; of the others
// likewise. Without Names there is nothing to do.
func (r *Registry) share(ctx context.Context, c *clientv3.Client, m *mirror, l leases, all bool) error {
	if r.names == nil {
		return nil
	}
	m.names.tell(r.names, r.conf.Self.Name, all)
	all = all || m.names.spoil
	m.names.spoil = false
	if err := r.publish(ctx, c, m, l, r.names.Own(all), all); err != nil {
		return fmt.Errorf("write names of containers: %w", err)
	}
	return nil
}

// opsAtOnce is how many keys a transaction changes; etcd takes 128 (--max-txn-ops).
const opsAtOnce = 100

// publish writes the names of this host's containers that differ. Of all of them, the
// others are deleted.
func (r *Registry) publish(ctx context.Context, c *clientv3.Client, m *mirror, l leases, own []overlay.Named, all bool) error {
	want := map[string]held{}
	if all {
		for key := range m.names.own {
			want[key] = held{}
		}
	}
	for _, one := range own {
		one.Node = r.conf.Self.Name
		var h held
		if len(one.Names) > 0 {
			h = held{value: encode(namedValue{Names: one.Names, Domain: one.Domain, Addresses: one.Addresses, Well: one.Well}), lease: l.live}
		}
		want[m.keys.named(one.NamedID)] = h
	}
	for key, h := range want {
		if have := m.names.own[key]; have.value == h.value && have.lease == h.lease {
			delete(want, key)
		}
	}
	for len(want) > 0 {
		if err := m.write(ctx, c, want); err != nil {
			return err
		}
	}
	return nil
}

// write writes some of the keys, and takes them out of want.
func (m *mirror) write(ctx context.Context, c *clientv3.Client, want map[string]held) error {
	var ops []clientv3.Op
	done := map[string]held{}
	for key, h := range want {
		if len(ops) == opsAtOnce {
			break
		}
		if done[key] = h; h.value == "" {
			ops = append(ops, clientv3.OpDelete(key))
		} else {
			ops = append(ops, clientv3.OpPut(key, h.value, clientv3.WithLease(h.lease)))
		}
	}
	resp, err := txn(ctx, c, nil, ops, nil)
	if err != nil {
		return err
	}
	for key, h := range done {
		h.revision = resp.Header.Revision
		m.names.own[key] = h
		delete(want, key)
	}
	return nil
}
