package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/libnet-cni/libnet/internal/overlay"
)

// isSecret says that a key is about the keys of encrypted networks, or about evicted hosts.
func isSecret(part []string) bool {
	switch {
	case len(part) == 2:
		return part[0] == "evicted"
	case len(part) < 3 || part[0] != "networks":
		return false
	}
	return len(part) == 3 && part[2] == "epoch" || len(part) == 4 && part[2] == "keys"
}

func (m *mirror) takeSecret(part []string, kv *mvccpb.KeyValue) (err error) {
	switch {
	case part[0] == "evicted":
		var v evictedValue
		err = json.Unmarshal(kv.Value, &v) // one that cannot be read evicts, too
		m.evicted[part[1]] = v.By
	case part[2] == "epoch":
		var v epochValue
		if err = json.Unmarshal(kv.Value, &v); err == nil {
			m.epochs[part[1]] = overlay.KeyEpoch{Epoch: v.Epoch, By: v.By, Revision: kv.ModRevision}
		}
	default:
		var v keysValue
		if err = json.Unmarshal(kv.Value, &v); err == nil {
			err = v.check()
		}
		if err == nil {
			if m.secrets[part[1]] == nil {
				m.secrets[part[1]] = map[string]overlay.HostKeys{}
			}
			k := overlay.HostKeys{Keys: v.Keys, Sends: v.Sends, Revision: kv.ModRevision}
			if v.Direct != nil {
				k.Direct = *v.Direct
			}
			m.secrets[part[1]][part[3]] = k
		}
	}
	return err
}

func (v keysValue) check() error {
	for _, k := range v.Keys {
		if k.Epoch < overlay.FirstEpoch || k.PublicKey.IsZero() || k.Port == 0 {
			return errors.New("want an epoch, a public key and a port with each of keys")
		}
	}
	return nil
}

func (m *mirror) dropSecret(part []string) {
	switch {
	case part[0] == "evicted":
		delete(m.evicted, part[1])
	case part[2] == "epoch":
		delete(m.epochs, part[1])
	default:
		delete(m.secrets[part[1]], part[3])
	}
}

func (m *mirror) addSecrets(v *overlay.View) {
	v.Evicted = maps.Clone(m.evicted)
	for name, s := range v.Networks {
		s.Epoch, s.Keys = m.epochs[name], maps.Clone(m.secrets[name])
		v.Networks[name] = s
	}
}

// SetKeys says which keys this host has of a network, in the place of what the entry of that
// revision says. ErrTaken: that is another one now, or this host has no blocks or is evicted.
func (r *Registry) SetKeys(ctx context.Context, network string, k overlay.HostKeys) error {
	c, err := r.current()
	if err != nil {
		return err
	}
	self := r.conf.Self.Name
	key := r.keys.secret(network, self)
	resp, err := txn(ctx, c, []clientv3.Cmp{
		unchanged(key, k.Revision), unchanged(r.keys.evicted(self), 0),
		clientv3.Compare(clientv3.CreateRevision(r.keys.holds(self)), ">", 0),
		clientv3.Compare(clientv3.CreateRevision(r.keys.terms(network)), ">", 0),
	}, []clientv3.Op{clientv3.OpPut(key, encodeKeys(k))}, nil)
	if err == nil && !resp.Succeeded {
		err = overlay.ErrTaken
	}
	if err != nil {
		return fmt.Errorf("announce the keys of network %s: %w", network, err)
	}
	return nil
}

// Rotate begins an epoch of a network's keys, unless another one has begun since at, which is
// ErrTaken.
func (r *Registry) Rotate(ctx context.Context, network string, at overlay.KeyEpoch, epoch int) error {
	c, err := r.current()
	if err != nil {
		return err
	}
	key := r.keys.epoch(network)
	resp, err := txn(ctx, c, []clientv3.Cmp{unchanged(key, at.Revision), clientv3.Compare(clientv3.CreateRevision(r.keys.terms(network)), ">", 0)},
		[]clientv3.Op{clientv3.OpPut(key, encode(epochValue{epoch, r.conf.Self.Name}))}, nil)
	if err == nil && !resp.Succeeded {
		err = overlay.ErrTaken
	}
	if err != nil {
		return fmt.Errorf("begin epoch %d of the keys of network %s: %w", epoch, network, err)
	}
	return nil
}

// Evict has all hosts leave a host out of all networks, until Admit.
func (r *Registry) Evict(ctx context.Context, node string) error {
	c, err := r.current()
	if err == nil {
		_, err = txn(ctx, c, nil, []clientv3.Op{clientv3.OpPut(r.keys.evicted(node), encode(evictedValue{r.conf.Self.Name}))}, nil)
	}
	if err != nil {
		return fmt.Errorf("evict node %s: %w", node, err)
	}
	return nil
}

// Admit takes back Evict.
func (r *Registry) Admit(ctx context.Context, node string) error {
	c, err := r.current()
	if err == nil {
		err = r.deleteAll(ctx, c, r.keys.evicted(node))
	}
	if err != nil {
		return fmt.Errorf("admit node %s: %w", node, err)
	}
	return nil
}
