package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/sorting"
)

// placeRoutes adds the routes of l. Those without a priority get one by l's
// precedence among what the container has of other networks, which may have
// to make way. It returns the container's other interfaces that have routes.
//
// The metric comes from a look at the routes, under a lock. One that follows
// from the precedence alone, which needs no look, was dropped: 32 bits do not
// hold a priority and the order of names, and the container with one network,
// which nearly all are, would show a metric that says nothing.
func placeRoutes(ctx context.Context, c *netlink.Conn, d *netlink.Device, l Link) (others []int, err error) {
	if len(l.Addrs) == 0 && len(l.Routes) == 0 {
		return nil, nil
	}
	free, err := l.Netns.LockRoutes(ctx)
	if err != nil {
		return nil, err
	}
	defer free()
	p := placing{Conn: c, self: d, prec: l.Precedence, have: map[routeTable][]netlink.Route{}, rivals: map[int]*rival{}, metrics: map[routeKey]int{}}
	if slices.ContainsFunc(l.Addrs, func(a netip.Prefix) bool { return a.Addr().Is4() }) {
		if _, err := p.routesOf(routeTable{unix.AF_INET, unix.RT_TABLE_MAIN}); err != nil {
			return nil, err
		}
	}
	for _, r := range l.Routes {
		if r.Priority == 0 && l.Precedence.Network != "" {
			if r.Priority, err = p.metric(r); err != nil {
				return nil, err
			}
		}
		if err := addRoute(c, d.Index, r); err != nil {
			return nil, err
		}
	}
	return p.others(), nil
}

type (
	routeTable struct{ family, table int }
	routeKey   struct {
		routeTable
		dst netip.Prefix
	}
	// rival is another interface of the container.
	rival struct {
		*netlink.Device
		prec Precedence
		ours bool
	}
	// contender is an interface with routes of one destination that may get
	// another metric.
	contender struct {
		rival
		routes []netlink.Route // as they are; none: the interface being attached
		metric int             // as it shall be
	}
)

// placing is one placeRoutes.
type placing struct {
	*netlink.Conn
	self    *netlink.Device
	prec    Precedence
	have    map[routeTable][]netlink.Route // of other interfaces
	rivals  map[int]*rival                 // by index
	metrics map[routeKey]int               // found already
}

// routesOf lists the routes of other interfaces.
func (p *placing) routesOf(t routeTable) ([]netlink.Route, error) {
	if rs, ok := p.have[t]; ok {
		return rs, nil
	}
	rs, err := p.Routes(t.family, 0, t.table)
	if err != nil {
		return nil, err
	}
	p.have[t] = slices.DeleteFunc(rs, func(r netlink.Route) bool { return r.OIF == p.self.Index || r.OIF == netlink.LoIndex || r.OIF == 0 })
	return p.have[t], nil
}

func (p *placing) others() []int {
	var all []int
	for _, rs := range p.have {
		for _, r := range rs {
			if !slices.Contains(all, r.OIF) {
				all = append(all, r.OIF)
			}
		}
	}
	sorting.Ordered(all)
	return all
}

// metric finds the metric of a route that names none, after those of our other
// networks are what they have to be beside it.
func (p *placing) metric(r Route) (int, error) {
	key := routeKey{routeTable{netlink.Family(r.Dst.Addr()), r.table()}, r.Dst.Masked()}
	if m, ok := p.metrics[key]; ok {
		return m, nil
	}
	have, err := p.routesOf(key.routeTable)
	if err != nil {
		return 0, err
	}
	is6 := r.Dst.Addr().Is6()
	all := []contender{{rival: rival{Device: p.self, prec: p.prec, ours: true}}}
	var fixed []int // metrics of others
	for _, h := range have {
		if h.Dst != key.dst {
			continue
		}
		v, err := p.rival(h.OIF)
		if err != nil {
			return 0, err
		}
		if !v.ours || h.Protocol == unix.RTPROT_KERNEL || !chosen(h.Priority, is6) {
			fixed = append(fixed, h.Priority)
			continue
		}
		if i := slices.IndexFunc(all, func(c contender) bool { return c.Index == h.OIF }); i >= 0 {
			all[i].routes = append(all[i].routes, h)
		} else {
			all = append(all, contender{rival: *v, routes: []netlink.Route{h}})
		}
	}
	assign(all, fixed, is6)
	if err := p.move(all); err != nil {
		return 0, err
	}
	for _, c := range all {
		if c.Index == p.self.Index {
			p.metrics[key] = c.metric
		}
	}
	return p.metrics[key], nil
}

// rival looks at another interface. One that has gone since counts as another
// program's.
func (p *placing) rival(index int) (*rival, error) {
	if v, ok := p.rivals[index]; ok {
		return v, nil
	}
	d, err := p.DeviceByIndex(index)
	if errors.Is(err, netlink.ErrNotFound) {
		d, err = &netlink.Device{Index: index}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("interface %d of the container: %w", index, err)
	}
	v := &rival{Device: d}
	if v.prec, v.ours = parsePrecedence(d.Alias); d.Kind != "veth" {
		v.ours = false
	}
	p.rivals[index] = v
	return v, nil
}

// assign sorts contenders by precedence and gives each its metric. Routes of
// other programs without a metric go first unless the priority is above 0;
// those in fixed have metrics that we may not have. No metric is given twice: of one metric IPv6 makes one route of
// several next hops.
func assign(all []contender, fixed []int, is6 bool) {
	sorting.Stable(all, func(a, b contender) int { return a.prec.compare(b.prec, a.Name, b.Name) })
	best := all[0].prec.first(is6)
	if all[0].prec.Priority > 0 {
		for is6 && slices.Contains(fixed, best) {
			best--
		}
	} else if slices.Contains(fixed, best) {
		best = metricBehind
	}
	next := best
	for i := range all {
		if i > 0 {
			next = max(next, metricBehind)
		}
		for next >= metricBehind && slices.Contains(fixed, next) {
			next++
		}
		all[i].metric = next
		next++
	}
}

// move gives the routes of contenders their metrics. A route is added under its
// new metric before the old one goes, so that there is always one, and not
// before its new metric is free.
func (p *placing) move(all []contender) error {
	todo := slices.Clone(all)
	free := func(c contender) bool {
		return !slices.ContainsFunc(todo, func(o contender) bool {
			return o.Index != c.Index && slices.ContainsFunc(o.routes, func(r netlink.Route) bool { return r.Priority == c.metric })
		})
	}
	for len(todo) > 0 {
		i := max(0, slices.IndexFunc(todo, free)) // a circle is cut open anywhere
		c := todo[i]
		circle := !free(c)
		todo = slices.Delete(todo, i, i+1)
		for _, r := range c.routes {
			if r.Priority == c.metric {
				continue
			}
			if err := p.moveRoute(r, c.metric, circle); err != nil {
				return err
			}
		}
	}
	return nil
}

// moveRoute changes the metric of a route. One that is gone meanwhile is not
// made again.
func (p *placing) moveRoute(r netlink.Route, metric int, circle bool) error {
	add := func() error {
		err := p.Change(r.Message(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, metric))
		if errors.Is(err, netlink.ErrExists) {
			err = nil
		}
		return err
	}
	remove := func() error {
		err := p.Change(r.Message(unix.RTM_DELROUTE, 0, r.Priority))
		if errors.Is(err, unix.ESRCH) || errors.Is(err, netlink.ErrNotFound) {
			err = nil
		}
		return err
	}
	steps := []func() error{add, remove}
	if circle {
		steps = []func() error{remove, add}
	}
	for _, step := range steps {
		if err := step(); errors.Is(err, netlink.ErrNotFound) || errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.ENETDOWN) {
			return nil // its interface goes just now
		} else if err != nil {
			return fmt.Errorf("metric %d of route %s of interface %d: %w", metric, r.Dst, r.OIF, err)
		}
	}
	return nil
}
