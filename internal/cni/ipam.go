package cni

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/libnet-cni/libnet/pkg/ipamstore"
	"github.com/libnet-cni/libnet/pkg/libnet"
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
func (c *Call) Pool() (*libnet.Pool, []netip.Addr, error) {
	ipam := c.Conf.Object("ipam")
	cfg := ipamstore.Config{Network: c.Network, Sets: c.sets(ipam)}
	ipam.String("dataDir", &cfg.DataDir)
	extra := readExtra(ipam)
	requested := c.requested()
	if err := ipam.Err(); err != nil {
		return nil, nil, err
	}
	if len(cfg.Sets) == 0 {
		return nil, nil, badKey("ipam.ranges", "missing", `want a list as [[{"subnet": "10.1.0.0/24"}]]`)
	}
	if err := c.allowSets(cfg.Sets); err != nil {
		return nil, nil, err
	}
	pool, err := libnet.NewPool(cfg, extra)
	return pool, requested, err
}

// LoosePool returns a pool that can only take addresses back. It does not look
// at the rest of the configuration: one that was edited after ADD must not keep
// DEL from its work (spec 1.1.0, section 4, DEL).
func (c *Call) LoosePool() (*libnet.Pool, error) {
	return libnet.NewClosedPool(c.Network, c.LooseString("ipam", "dataDir"))
}

// LooseString returns the string under a path of keys; empty if there is none
// or another value.
func (c *Call) LooseString(keys ...string) string {
	conf, err := ParseObject(c.Stdin)
	for _, key := range keys[:len(keys)-1] {
		conf = conf.Object(key)
	}
	var s string
	if conf.String(keys[len(keys)-1], &s); err != nil || conf.Err() != nil {
		return ""
	}
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

// sets gathers the ranges of the runtime, of the legacy single range and of
// the configuration, in the order host-local has them.
func (c *Call) sets(ipam *Object) []ipamstore.RangeSet {
	sets := readSets(c.Conf.Object("runtimeConfig").List("ipRanges"))
	if ipam.Raw("subnet") != nil {
		sets = append(sets, ipamstore.RangeSet{readRange(ipam)})
	}
	return append(sets, readSets(ipam.List("ranges"))...)
}

// allowSets refuses what a result of the configuration's version cannot hold:
// before 0.3.0 it has one address per family.
func (c *Call) allowSets(sets []ipamstore.RangeSet) error {
	if many, err := version.GreaterThanOrEqualTo(c.Version, "0.3.0"); many || err != nil {
		return err
	}
	families := map[bool]int{}
	for _, set := range sets {
		if len(set) > 0 {
			families[set[0].Subnet.Addr().Is6()]++
		}
	}
	if families[false] > 1 || families[true] > 1 {
		return badKey("cniVersion", c.Version, "a version before 0.3.0 has one address per family; use 0.3.0 or later, or one range set per family")
	}
	return nil
}

// readSets reads a list of lists of ranges. A flat list of ranges, as go-cni's
// helper sends it, is a list of sets of one.
func readSets(list []Item) []ipamstore.RangeSet {
	var sets []ipamstore.RangeSet
	for _, item := range list {
		if item.IsObject() {
			sets = append(sets, ipamstore.RangeSet{readRange(item.Object())})
			continue
		}
		var set ipamstore.RangeSet
		for _, r := range item.List() {
			set = append(set, readRange(r.Object()))
		}
		sets = append(sets, set)
	}
	return sets
}

func readRange(o *Object) ipamstore.Range {
	return ipamstore.Range{
		Subnet: o.Prefix("subnet"), Start: o.Addr("rangeStart"), End: o.Addr("rangeEnd"), Gateway: o.Addr("gateway"),
	}
}

// requested returns the addresses the runtime asks for, each once. All three
// sources count, as in host-local.
func (c *Call) requested() []netip.Addr {
	var out []netip.Addr
	add := func(key string, values ...string) {
		for _, v := range values {
			host, _, _ := strings.Cut(v, "/")
			a, err := netip.ParseAddr(host)
			if err != nil {
				c.Conf.fail(badKey(key, fmt.Sprintf("%q", v), `want an address as "10.1.0.5" or "10.1.0.5/24"`))
			}
			if a = a.Unmap(); !slices.Contains(out, a) {
				out = append(out, a)
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
func readExtra(ipam *Object) libnet.Addressing {
	var extra libnet.Addressing
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

func readRoute(o *Object) libnet.Route {
	r := libnet.Route{Dst: o.Prefix("dst"), Gateway: o.Addr("gw"), Table: o.OptionalInt("table"), Scope: o.OptionalInt("scope")}
	o.Int("mtu", &r.MTU)
	o.Int("advmss", &r.AdvMSS)
	o.Int("priority", &r.Priority)
	return r
}

func badKey(key, value, want string) error {
	return codef(types.ErrInvalidNetworkConfig, "%s: %s: %s", key, value, want)
}
