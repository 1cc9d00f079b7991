package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/service"
)

// room is what decides which address a new service of a network gets.
type room struct {
	overlay.Shared
	network  string
	revision int64 // of etcd
	taken    map[netip.Addr]string
}

// room reads a network. There being a service of that name is ErrTaken.
func (r *Registry) room(ctx context.Context, c *clientv3.Client, network, name string) (room, error) {
	got, err := ask(ctx, c, clientv3.OpGet(r.keys.service(network, name)), clientv3.OpGet(r.keys.terms(network)),
		clientv3.OpGet(r.keys.blocks(network), clientv3.WithPrefix()), clientv3.OpGet(r.keys.vips(network), clientv3.WithPrefix()))
	if err != nil {
		return room{}, err
	}
	if len(got.Responses[0].GetResponseRange().Kvs) > 0 {
		return room{}, fmt.Errorf("%w: it is there already", overlay.ErrTaken)
	}
	m := newMirror(r.keys)
	for _, resp := range got.Responses[1:3] {
		for _, kv := range resp.GetResponseRange().Kvs {
			m.put(kv)
		}
	}
	all := room{Shared: m.view().Networks[network], network: network, revision: got.Header.Revision, taken: map[netip.Addr]string{}}
	if !all.Agreed {
		return room{}, errors.New("its hosts have not agreed on the network yet")
	}
	for _, kv := range got.Responses[3].GetResponseRange().Kvs {
		a, err := netip.ParseAddr(strings.TrimPrefix(string(kv.Key), r.keys.vips(network)))
		if err != nil {
			continue // it stands in the way of none
		}
		var v vipValue
		_ = json.Unmarshal(kv.Value, &v) // the name is for the message only
		all.taken[a] = v.Service
	}
	return all, nil
}

// block is the one that an address lies in.
func (r room) block(a netip.Addr) netip.Prefix {
	bits := r.Terms.Size.IPv4
	if a.Is6() {
		bits = r.Terms.Size.IPv6
	}
	return netip.PrefixFrom(a, bits).Masked()
}

// lacks returns the block of an address that is not that of services yet; zero: all are.
func (r room) lacks(addrs []netip.Addr) (netip.Prefix, error) {
	for _, a := range addrs {
		b := r.block(a)
		switch h, taken := r.Blocks[b]; {
		case !taken:
			return b, nil
		case h.Node != overlay.ServiceHolder:
			return b, fmt.Errorf("%w: vip %s: is in block %s of node %s: want auto, or an address in a block of no host", service.ErrInvalid, a, b, h.Node)
		}
	}
	return netip.Prefix{}, nil
}

// check says which of the addresses that a service is to have cannot be.
func (r room) check(addrs []netip.Addr) error {
	for i, a := range addrs {
		in := func(s netip.Prefix) bool { return s.Contains(a) }
		switch other, taken := r.taken[a]; {
		case slices.ContainsFunc(addrs[:i], func(b netip.Addr) bool { return a.Is4() == b.Is4() }):
			return fmt.Errorf("%w: vip %s: want one address of each family", service.ErrInvalid, a)
		case !slices.ContainsFunc(r.Terms.Subnets, in):
			return fmt.Errorf("%w: vip %s: want an address of the network's subnets %v", service.ErrInvalid, a, r.Terms.Subnets)
		case taken:
			return fmt.Errorf("%w: vip %s: is that of service %q", service.ErrInvalid, a, other)
		}
	}
	return nil
}

// free returns an address of each subnet for a service: one in the blocks of services, or the
// one that it gets in a block that is free.
func (r room) free(name string) (all []netip.Addr, err error) {
	for _, subnet := range r.Terms.Subnets {
		var own []netip.Prefix
		for b, h := range r.Blocks {
			if h.Node == overlay.ServiceHolder && subnet.Contains(b.Addr()) {
				own = append(own, b)
			}
		}
		slices.SortFunc(own, netip.Prefix.Compare)
		a, ok := netip.Addr{}, false
		for _, b := range own {
			if a, ok = r.freeIn(b, name); ok {
				break
			}
		}
		if !ok {
			b, err := r.Choose(subnet, overlay.ServiceHolder)
			if err != nil {
				return nil, fmt.Errorf("vip auto: services need a block for themselves: %w", err)
			}
			if a, ok = r.freeIn(b, name); !ok {
				return nil, fmt.Errorf("vip auto: %w", overlay.ErrFull)
			}
		}
		all = append(all, a)
	}
	return all, nil
}

// freeIn returns a free address of a block; neither the first nor the last one, if it has more.
// Each name begins at another place, so that two services which are made at once seldom want
// the same one.
func (r room) freeIn(b netip.Prefix, name string) (netip.Addr, bool) {
	const most = 16 // bits: no network has more services than this
	bits := min(b.Addr().BitLen()-b.Bits(), most)
	first, count := 0, 1<<bits
	if bits > 1 {
		first, count = 1, count-2
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	for i := range count {
		one, ok := overlay.Block(b, b.Addr().BitLen(), first+(int(h.Sum32())+i)%count)
		if _, taken := r.taken[one.Addr()]; ok && !taken {
			return one.Addr(), true
		}
	}
	return netip.Addr{}, false
}
