package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/libnet-cni/libnet/internal/overlay"
)

// Agree writes the terms of a network unless there are some, which is success,
// too: they come with the next view. A VNI of 0 is chosen: the one derived from
// the name, or the next that no other network has. A VNI that is another
// network's is ErrTaken.
func (r *Registry) Agree(ctx context.Context, network string, t overlay.Terms) error {
	c, err := r.current()
	if err != nil {
		return err
	}
	chosen := t.VNI != 0
	if !chosen {
		t.VNI = overlay.VNI(network)
	}
	for range tries {
		terms, vni := r.keys.terms(network), r.keys.vni(t.VNI)
		resp, err := txn(ctx, c,
			[]clientv3.Cmp{unchanged(terms, 0), unchanged(vni, 0)},
			[]clientv3.Op{clientv3.OpPut(terms, encodeTerms(t)), clientv3.OpPut(vni, encode(vniValue{network}))},
			[]clientv3.Op{clientv3.OpGet(terms), clientv3.OpGet(vni)})
		if err != nil {
			return fmt.Errorf("agree on network %s: %w", network, err)
		}
		if resp.Succeeded || len(resp.Responses[0].GetResponseRange().Kvs) > 0 {
			return nil
		}
		if held := resp.Responses[1].GetResponseRange().Kvs; chosen && len(held) > 0 {
			var v vniValue
			_ = json.Unmarshal(held[0].Value, &v) // the name is for the message only
			return fmt.Errorf("network %s: VNI %d: %w: network %s has it", network, t.VNI, overlay.ErrTaken, v.Network)
		}
		if t.VNI++; t.VNI > overlay.MaxVNI {
			t.VNI = overlay.MinVNI
		}
	}
	return fmt.Errorf("network %s: no VNI found in %d tries: give it one", network, tries)
}

// Claim makes a block this host's. ErrTaken says that it is not free any more,
// or the network's terms are others than in the view that s is of, or this host
// is no member any more: the next view tells.
//
// at is the view's moment: a registry whose history has changed since is another
// one to claim from.
func (r *Registry) Claim(ctx context.Context, network string, s overlay.Shared, at overlay.Moment, block netip.Prefix) error {
	c, err := r.current()
	if err != nil {
		return err
	}
	key, self := r.keys.block(network, block), r.conf.Self.Name
	now, err := ask(ctx, c, clientv3.OpGet(key, clientv3.WithCountOnly())) // etcd's revision, which others raise, too
	if err != nil {
		return fmt.Errorf("claim %s of network %s: %w", block, network, err)
	}
	epoch := overlay.Epoch{Generation: at.Generation, Revision: now.Header.Revision}
	resp, err := txn(ctx, c,
		[]clientv3.Cmp{
			unchanged(key, 0), unchanged(r.keys.terms(network), s.Revision),
			clientv3.Compare(clientv3.CreateRevision(r.keys.holds(self)), ">", 0),
			clientv3.Compare(clientv3.ModRevision(r.keys.history()), "<", at.Revision+1),
		},
		[]clientv3.Op{clientv3.OpPut(key, encodeBlock(self, epoch))}, nil)
	if err == nil && !resp.Succeeded {
		err = overlay.ErrTaken
	}
	if err != nil {
		return fmt.Errorf("claim %s of network %s: %w", block, network, err)
	}
	return nil
}

// Reclaim frees the blocks of a host that the view says is gone, unless it has
// come back since, and forgets it.
func (r *Registry) Reclaim(ctx context.Context, v overlay.View, node string) (freed []netip.Prefix, err error) {
	c, err := r.current()
	if err != nil {
		return nil, err
	}
	absent := unchanged(r.keys.holds(node), 0)
	free := func(key string, revision int64) (bool, error) {
		resp, err := txn(ctx, c, []clientv3.Cmp{absent, unchanged(key, revision)}, []clientv3.Op{clientv3.OpDelete(key)}, nil)
		if err != nil {
			return false, fmt.Errorf("reclaim the blocks of node %s: %w", node, err)
		}
		return resp.Succeeded, nil
	}
	for network := range v.Networks {
		if k, has := v.Networks[network].Keys[node]; has {
			if _, err := free(r.keys.secret(network, node), k.Revision); err != nil {
				return freed, err
			}
		}
		for _, b := range v.Own(network, node) {
			did, err := free(r.keys.block(network, b), v.Networks[network].Blocks[b].Revision)
			if err != nil {
				return freed, err
			}
			if did {
				freed = append(freed, b)
			}
		}
	}
	if m, known := v.Members[node]; known {
		_, err = free(r.keys.node(node), m.Revision)
	}
	return freed, err
}

// Leave gives back this host's blocks of a network, and the network's terms and
// VNI with the last one's. It needs no session.
func (r *Registry) Leave(ctx context.Context, network string) error {
	return r.within(ctx, func(c *clientv3.Client) error {
		m, err := r.read(ctx, c)
		if err != nil {
			return err
		}
		v := m.view()
		s := v.Networks[network]
		for _, b := range v.Own(network, r.conf.Self.Name) {
			key := r.keys.block(network, b) // another host may have it by now
			if _, err := txn(ctx, c, []clientv3.Cmp{unchanged(key, s.Blocks[b].Revision)}, []clientv3.Op{clientv3.OpDelete(key)}, nil); err != nil {
				return fmt.Errorf("leave network %s: %w", network, err)
			}
		}
		own := []clientv3.Op{
			clientv3.OpDelete(r.keys.namedOf(network, r.conf.Self.Name), clientv3.WithPrefix()), clientv3.OpDelete(r.keys.secret(network, r.conf.Self.Name)),
		}
		if _, err := txn(ctx, c, nil, own, nil); err != nil {
			return fmt.Errorf("leave network %s: %w", network, err)
		}
		if !s.Agreed {
			return nil
		}
		if err := r.endNetwork(ctx, c, network, s); err != nil {
			return fmt.Errorf("leave network %s: %w", network, err)
		}
		return nil
	})
}

// Forget removes what says that this host is there; its blocks must be given
// back before.
func (r *Registry) Forget(ctx context.Context) error {
	return r.within(ctx, func(c *clientv3.Client) error {
		self := r.conf.Self
		err := errors.Join(r.quiet(ctx, c), r.deleteAll(ctx, c, r.keys.holds(self.Name), r.keys.node(self.Name), r.keys.joining(self.Name)))
		return errors.Join(err, r.endHistory(ctx, c))
	})
}

// endHistory removes the history with the last host and the last network.
func (r *Registry) endHistory(ctx context.Context, c *clientv3.Client) error {
	var none []clientv3.Cmp
	for _, below := range []string{r.keys.node(""), r.keys.holds(""), r.keys.networks()} {
		none = append(none, clientv3.Compare(clientv3.CreateRevision(below).WithPrefix(), "=", 0))
	}
	_, err := txn(ctx, c, none, []clientv3.Op{clientv3.OpDelete(r.keys.history())}, nil)
	return err
}

// Quiet says that this host's agent is not there any more, on purpose: its name
// and address are free at once, its blocks stay its own.
func (r *Registry) Quiet(ctx context.Context) error {
	return r.within(ctx, func(c *clientv3.Client) error { return r.quiet(ctx, c) })
}

// quiet removes what is live of this host, if it is this host's.
func (r *Registry) quiet(ctx context.Context, c *clientv3.Client) error {
	self := r.conf.Self
	mine := encode(liveValue{self.Name, self.Instance})
	var errs []error
	for _, key := range []string{r.keys.liveNode(self.Name), r.keys.liveAddr(self.Address)} {
		_, err := txn(ctx, c, []clientv3.Cmp{clientv3.Compare(clientv3.Value(key), "=", mine)}, []clientv3.Op{clientv3.OpDelete(key)}, nil)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (r *Registry) deleteAll(ctx context.Context, c *clientv3.Client, keys ...string) error {
	var ops []clientv3.Op
	for _, k := range keys {
		ops = append(ops, clientv3.OpDelete(k))
	}
	_, err := txn(ctx, c, nil, ops, nil)
	return err
}
