package mesh

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/libnet-cni/libnet/internal/service"
)

const (
	// checkTick is how often containers are looked for that are to be checked: those that are not
	// well, and new ones, each time.
	checkTick = time.Second
	// checkPatience is how long a container may take to accept a connection.
	checkPatience = time.Second
	// mostFailed is how many checks in a row have to fail until a container that was well is not.
	mostFailed = 2
	// checksAtOnce bounds the connections that are opened beside each other.
	checksAtOnce = 64
)

// attachment is a container of this host, on a network.
type attachment struct{ network, container, ifName string }

// checked is what is known of a container by the check of a service.
type checked struct {
	service.Backend
	failed int // in a row
	next   time.Time
}

// checker has what is for the goroutine of checks alone.
type checker struct {
	open controllers
	of   map[key]map[string]*checked // by the backend's key
	told map[attachment][]string
}

// checkLoop checks the containers of this host for the services that want it, until ctx ends.
func (m *Mesh) checkLoop(ctx context.Context) error {
	c := checker{open: controllers{}, of: map[key]map[string]*checked{}, told: map[attachment][]string{}}
	defer c.open.close()
	tick := time.NewTicker(checkTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			m.check(ctx, c)
		}
	}
}

// check does the checks that are due, and tells what came of them.
func (m *Mesh) check(ctx context.Context, c checker) {
	todo := m.checkedServices()
	maps.DeleteFunc(c.of, func(k key, _ map[string]*checked) bool { _, has := todo[k]; return !has })
	var g errgroup.Group
	g.SetLimit(checksAtOnce)
	for k, def := range todo {
		m.find(c, k, def)
		for _, one := range c.of[k] {
			if time.Now().Before(one.next) {
				continue
			}
			g.Go(func() error {
				one.judge(def.Health, accepts(ctx, one.Addresses, def.Health.Port))
				return nil
			})
		}
	}
	_ = g.Wait()
	if ctx.Err() != nil {
		return
	}
	m.take(c, todo)
	m.tell(c)
}

// checkedServices are those whose containers are to be checked.
func (m *Mesh) checkedServices() map[key]service.Shared {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[key]service.Shared{}
	for k, def := range m.defs {
		if _, ours := m.networks[k.network]; ours && def.Health.Is() {
			all[k] = def
		}
	}
	return all
}

// find brings the containers of a service to those that there are. One that is new is as the
// record says, if an agent before this one has checked it; otherwise it is not well yet.
func (m *Mesh) find(c checker, k key, def service.Shared) {
	m.mu.Lock()
	dir, well := m.networks[k.network].StateDir, m.well[k]
	m.mu.Unlock()
	s, err := c.open.services(dir)
	if err != nil {
		return // it is told elsewhere
	}
	own, err := s.Own(k.network, def.Name, def.Select)
	if err != nil {
		return
	}
	now := map[string]*checked{}
	for _, b := range own {
		b.Node = m.conf.Node
		one := c.of[k][b.Key()]
		if one == nil {
			one = &checked{Backend: b}
			one.Well = slices.Contains(well, b.Key())
		}
		one.Addresses = b.Addresses
		now[b.Key()] = one
	}
	c.of[k] = now
}

// judge takes over whether a container accepted a connection.
func (c *checked) judge(h service.Health, accepted bool) {
	if accepted {
		c.Well, c.failed, c.next = true, 0, time.Now().Add(h.Every)
		return
	}
	if c.failed++; c.failed >= mostFailed {
		c.Well = false
	}
	c.next = time.Now() // the next time
}

// accepts says whether a program listens at one of the addresses.
func accepts(ctx context.Context, at []netip.Addr, port uint16) bool {
	for _, a := range at {
		d := net.Dialer{Timeout: checkPatience}
		c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(a, port).String())
		if err == nil {
			_ = c.Close()
			return true
		}
	}
	return false
}

// take has services follow that have other containers which are well than before.
func (m *Mesh) take(c checker, todo map[key]service.Shared) {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed := false
	for k := range todo {
		var well []string
		own := make([]service.Backend, 0, len(c.of[k]))
		for at, one := range c.of[k] {
			if own = append(own, one.Backend); one.Well {
				well = append(well, at)
			}
		}
		slices.Sort(well)
		m.own[k] = own
		if !slices.Equal(well, m.well[k]) {
			m.conf.Log.Info("containers of a service that are well", "network", k.network, "service", k.name, "well", well, "of", len(own))
			m.well[k], m.dirty[k], changed = well, true, true
		}
	}
	for k := range m.own {
		if _, has := todo[k]; !has {
			delete(m.own, k)
			delete(m.well, k)
		}
	}
	if changed {
		m.hint()
	}
}

// tell has the other hosts know which containers are well.
func (m *Mesh) tell(c checker) {
	now := map[attachment][]string{}
	for k, all := range c.of {
		for _, one := range all {
			at := attachment{k.network, one.ContainerID, one.IfName}
			if now[at] = append(now[at], nil...); one.Well {
				now[at] = append(now[at], k.name)
			}
		}
	}
	for at := range c.told {
		if _, has := now[at]; !has {
			m.conf.Well(at.network, at.container, at.ifName, nil)
			delete(c.told, at)
		}
	}
	for at, services := range now {
		slices.Sort(services)
		if before, had := c.told[at]; !had || !slices.Equal(before, services) {
			m.conf.Well(at.network, at.container, at.ifName, services)
			c.told[at] = services
		}
	}
}

// recall takes over from the records of a network which of its containers were well, before
// other hosts hear of them: a new agent is not to take any out of services that it has not
// checked yet.
func (m *Mesh) recall(n Network) {
	open := controllers{}
	defer open.close()
	s, err := open.services(n.StateDir)
	if err != nil {
		return // begin tells
	}
	all, _ := s.Well(n.Name)
	services := map[string][]string{}
	for name, keys := range all {
		k := key{n.Name, name}
		m.mu.Lock()
		if _, has := m.well[k]; !has {
			m.well[k] = keys
		}
		m.mu.Unlock()
		for _, at := range keys {
			services[at] = append(services[at], name)
		}
	}
	for at, names := range services {
		slices.Sort(names)
		container, ifName, _ := strings.Cut(at, ":")
		m.conf.Well(n.Name, container, ifName, names)
	}
}

// failing says which services have no container that is well; their check counts for nothing.
func (m *Mesh) failing() (errs []error) {
	for _, k := range slices.SortedFunc(maps.Keys(m.own), compare) {
		def := m.defs[k]
		if def.AllFail(slices.Concat(m.own[k], m.backends(def))) {
			errs = append(errs, fmt.Errorf("service %q of network %q: the check tcp:%s fails for all containers; they get connections all the same", def.Name, def.Network, strconv.Itoa(int(def.Health.Port))))
		}
	}
	return errs
}
