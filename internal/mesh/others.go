package mesh

import (
	"cmp"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/service"
)

// Others takes over the containers of other hosts: all of them, or those that changed. One that
// is gone has no names.
func (m *Mesh) Others(these []overlay.Named, all bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if all {
		there := make(map[overlay.NamedID]bool, len(these))
		for i := range these {
			there[these[i].NamedID] = true
		}
		for id := range m.others {
			if !there[id] {
				m.move(&overlay.Named{NamedID: id})
			}
		}
	}
	for _, one := range these {
		m.move(&one)
	}
	m.heard = m.heard || all
	m.hint()
}

// same says that two are the same for services.
func same(a, b *overlay.Named) bool {
	return slices.Equal(a.Names, b.Names) && slices.Equal(a.Addresses, b.Addresses) && slices.Equal(a.Well, b.Well)
}

// move takes over a container as it is now.
func (m *Mesh) move(now *overlay.Named) {
	before := m.others[now.NamedID]
	switch {
	case before == nil && len(now.Names) == 0 || before != nil && same(before, now):
		return
	case before != nil:
		for _, name := range before.Names {
			at := selection{now.Network, strings.ToLower(name)}
			m.unlist(at, before)
			m.touch(at)
		}
	}
	if len(now.Names) == 0 {
		delete(m.others, now.NamedID)
		return
	}
	m.others[now.NamedID] = now
	for _, name := range now.Names {
		at := selection{now.Network, strings.ToLower(name)}
		m.list(at, now)
		m.touch(at)
	}
}

func (m *Mesh) list(at selection, one *overlay.Named) {
	all := m.byName[at]
	if i, is := slices.BinarySearchFunc(all, one, compareNamed); !is {
		m.byName[at] = slices.Insert(all, i, one)
	}
}

func (m *Mesh) unlist(at selection, one *overlay.Named) {
	all := m.byName[at]
	i, is := slices.BinarySearchFunc(all, one, compareNamed)
	if !is {
		return
	}
	if m.byName[at] = slices.Delete(all, i, i+1); len(all) == 1 {
		delete(m.byName, at)
	}
}

// compareNamed orders containers of a network by the keys that they have as backends, and by host.
func compareNamed(a, b *overlay.Named) int {
	return cmp.Or(compareKeys(a, b), cmp.Compare(a.Node, b.Node))
}

// compareKeys makes keys only where the beginnings of the IDs are alike: else these tell.
func compareKeys(a, b *overlay.Named) int {
	if a.Container == b.Container {
		return cmp.Compare(a.IfName, b.IfName)
	}
	n := min(len(a.Container), len(b.Container))
	if is := cmp.Compare(a.Container[:n], b.Container[:n]); is != 0 {
		return is
	}
	return cmp.Compare(asBackend(a).Key(), asBackend(b).Key())
}

func asBackend(one *overlay.Named) service.Backend {
	return service.Backend{ContainerID: one.Container, IfName: one.IfName, Names: one.Names, Addresses: one.Addresses, Node: one.Node}
}

// backends are those of a service on other hosts, in order: each host divides alike.
func (m *Mesh) backends(s service.Shared) (all []service.Backend) {
	if m.evicted[m.conf.Node] {
		return nil // nothing of the network gets in or out
	}
	these := m.byName[selection{s.Network, strings.ToLower(s.Select)}]
	for _, one := range these {
		if m.evicted[one.Node] {
			continue
		}
		if all == nil {
			all = make([]service.Backend, 0, len(these))
		}
		b := asBackend(one)
		b.Well = s.Health.Is() && slices.Contains(one.Well, strings.ToLower(s.Name))
		if preserves(s) {
			b.NodeAddresses = m.addresses[one.Node]
		}
		all = append(all, b)
	}
	return all
}
