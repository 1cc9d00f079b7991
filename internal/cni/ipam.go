package cni

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// IPAMType returns the configuration's ipam.type; empty if it has none.
func (c *Call) IPAMType() (string, error) {
	var kind string
	ipam := c.Conf.Object("ipam")
	ipam.String("type", &kind)
	return kind, ipam.Err()
}

// Pool returns the pool that the configuration's ipam section describes, and
// the addresses the runtime asks for.
func (c *Call) Pool() (address.IPAM, []netip.Addr, error) {
	ipam := c.Conf.Object("ipam")
	return c.pool(ipam, c.ranges(ipam))
}

func (c *Call) pool(ipam *Object, ranges rangeList) (address.IPAM, []netip.Addr, error) {
	cfg := ipamstore.Config{Network: c.Network, Sets: ranges.sets}
	ipam.String("dataDir", &cfg.DataDir)
	readPolicy(ipam, &cfg)
	extra := readExtra(ipam)
	requested := c.requested()
	if err := ipam.Err(); err != nil {
		return nil, nil, err
	}
	if len(cfg.Sets) == 0 {
		return nil, nil, badKey("ipam.ranges", "missing", `want a list as [[{"subnet": "10.1.0.0/24"}]]`)
	}
	if err := c.allowSets(ranges); err != nil {
		return nil, nil, err
	}
	pool, err := newPool(cfg, ranges.wants, extra)
	return pool, requested, c.named(err, ipam)
}

// WarnNearlyFull prints which range sets of a pool have reached ipam.warnAt.
func (c *Call) WarnNearlyFull(ctx context.Context, ipam address.IPAM) {
	if pool, ok := ipam.(*address.Pool); ok {
		if line := pool.NearlyFull(ctx); line != "" {
			c.Warn(line)
		}
	}
}

func newPool(cfg ipamstore.Config, wants map[int]ipamstore.SubnetRequest, extra model.Addressing) (address.IPAM, error) {
	if len(wants) > 0 {
		return address.NewAutoPool(cfg, wants, extra)
	}
	return address.NewPool(cfg, extra)
}

// LoosePool returns a pool that can only take addresses back. It does not look
// at the rest of the configuration: one that was edited after ADD must not keep
// DEL from its work (spec 1.1.0, section 4, DEL).
func (c *Call) LoosePool() (*address.Pool, error) {
	return address.NewPool(c.looseConfig(), model.Addressing{})
}

// LooseString returns the string under a path of keys; empty if there is none
// or another value.
func (c *Call) LooseString(keys ...string) string {
	conf := c.Conf.apart()
	for _, key := range keys[:len(keys)-1] {
		conf = conf.Object(key)
	}
	var s string
	conf.String(keys[len(keys)-1], &s)
	return s
}

// AllowNoAddresses refuses a configuration without addresses whose version has
// no result that could say so.
func (c *Call) AllowNoAddresses() error {
	if ok, err := version.GreaterThanOrEqualTo(c.Version, "0.3.0"); ok || err != nil {
		return err
	}
	return badKey("cniVersion", fmt.Sprintf("%q", c.Version), "a result before 0.3.0 must have an address: add an ipam section, or use 0.3.0 or later")
}

// rangeList is range sets, and of those whose subnet is to be chosen what it
// shall be, by the set's index.
type rangeList struct {
	sets  []ipamstore.RangeSet
	wants map[int]ipamstore.SubnetRequest
}

// ranges gathers the ranges of the runtime, of the legacy single range and of
// the configuration, in the order host-local has them.
func (c *Call) ranges(ipam *Object) rangeList {
	l := rangeList{wants: map[int]ipamstore.SubnetRequest{}}
	l.addSets(c.Conf.Object("runtimeConfig").List("ipRanges"))
	if ipam.Raw("subnet") != nil {
		l.addSet(ipam)
	}
	l.addSets(ipam.List("ranges"))
	return l
}

// addSets reads a list of lists of ranges. A flat list of ranges, as go-cni's
// helper sends it, is a list of sets of one.
func (l *rangeList) addSets(list []Item) {
	for _, item := range list {
		if item.IsObject() {
			l.addSet(item.Object())
			continue
		}
		var set []*Object
		for _, r := range item.List() {
			set = append(set, r.Object())
		}
		l.addSet(set...)
	}
}

func (l *rangeList) addSet(ranges ...*Object) {
	var set ipamstore.RangeSet
	for _, o := range ranges {
		r := ipamstore.Range{Start: o.Addr("rangeStart"), End: o.Addr("rangeEnd"), Gateway: o.Addr("gateway")}
		if want, auto := readAuto(o); auto {
			l.wants[len(l.sets)] = want
		} else {
			r.Subnet = o.Prefix("subnet")
		}
		set = append(set, r)
	}
	l.sets = append(l.sets, set)
}

// readAuto reads a subnet that is to be chosen; false for one that is given.
func readAuto(o *Object) (ipamstore.SubnetRequest, bool) {
	s, _ := unquote(o.Raw("subnet"))
	if !strings.HasPrefix(s, "auto") {
		return ipamstore.SubnetRequest{}, false
	}
	want, err := ipamstore.ParseSubnetRequest(s)
	if err != nil {
		o.Refuse("subnet", `"auto" or "auto6", or one of these with a length as "auto/24" and "auto6/64"`)
	}
	return want, true
}

// allowSets refuses what a result of the configuration's version cannot hold:
// before 0.3.0 it has one address per family.
func (c *Call) allowSets(l rangeList) error {
	if many, err := version.GreaterThanOrEqualTo(c.Version, "0.3.0"); many || err != nil {
		return err
	}
	families := map[bool]int{}
	for i, set := range l.sets {
		want, auto := l.wants[i]
		switch {
		case auto:
			families[want.IPv6]++
		case len(set) > 0:
			families[set[0].Subnet.Addr().Is6()]++
		}
	}
	if families[false] > 1 || families[true] > 1 {
		return badKey("cniVersion", c.Version, "a version before 0.3.0 has one address per family; use 0.3.0 or later, or one range set per family")
	}
	return nil
}

// requested returns the addresses the runtime asks for, each once. All three
// sources count, as in host-local.
func (c *Call) requested() []netip.Addr {
	var out []netip.Addr
	seen := map[netip.Addr]bool{}
	add := func(key string, values ...string) {
		for _, v := range values {
			host, _, _ := strings.Cut(v, "/")
			a, err := netip.ParseAddr(host)
			if err != nil {
				c.Conf.fail(badKey(key, fmt.Sprintf("%q", v), `want an address as "10.1.0.5" or "10.1.0.5/24"`))
			}
			if a = a.Unmap(); !seen[a] {
				out, seen[a] = append(out, a), true
			}
		}
	}
	if ip := c.Args["IP"]; ip != "" {
		add("CNI_ARGS IP", ip)
	}
	add("args.cni.ips", c.Conf.Object("args").Object("cni").Strings("ips")...)
	add("runtimeConfig.ips", c.Conf.Object("runtimeConfig").Strings("ips")...)
	return out
}

// readExtra reads what goes with every address: routes and name servers.
func readExtra(ipam *Object) model.Addressing {
	var extra model.Addressing
	for _, item := range ipam.List("routes") {
		extra.Routes = append(extra.Routes, readRoute(item.Object()))
	}
	var file string
	if ipam.String("resolvConf", &file); file == "" {
		return extra
	}
	dns, err := readResolvConf(file)
	if err != nil {
		ipam.fail(badKey("ipam.resolvConf", fmt.Sprintf("%q", file), err.Error()))
	}
	extra.DNS = dns
	return extra
}

func readRoute(o *Object) model.Route {
	r := model.Route{Dst: o.Prefix("dst"), Gateway: o.Addr("gw"), Table: o.OptionalInt("table"), Scope: o.OptionalInt("scope")}
	o.Int("mtu", &r.MTU)
	o.Int("advmss", &r.AdvMSS)
	o.Int("priority", &r.Priority)
	return r
}

func badKey(key, value, want string) error {
	return codef(types.ErrInvalidNetworkConfig, "%s: %s: %s", key, value, want)
}
