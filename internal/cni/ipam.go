package cni

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/libnet-cni/libnet/pkg/ipamstore"
	"github.com/libnet-cni/libnet/pkg/libnet"
)

// ipamConf is what a configuration says of addresses, as raw as it comes: the
// ipam section and what the runtime adds to it.
type ipamConf struct {
	IPAM *ipamSection `json:"ipam"`
	Args struct {
		CNI struct {
			IPs []string `json:"ips"`
		} `json:"cni"`
	} `json:"args"`
	RuntimeConfig struct {
		IPs      []string        `json:"ips"`
		IPRanges json.RawMessage `json:"ipRanges"`
	} `json:"runtimeConfig"`
}

type ipamSection struct {
	Type string `json:"type"`
	rangeConf
	Ranges     json.RawMessage   `json:"ranges"`
	Routes     []json.RawMessage `json:"routes"`
	DataDir    string            `json:"dataDir"`
	ResolvConf string            `json:"resolvConf"`
}

type rangeConf struct {
	Subnet     string `json:"subnet"`
	RangeStart string `json:"rangeStart"`
	RangeEnd   string `json:"rangeEnd"`
	Gateway    string `json:"gateway"`
}

// IPAMType returns the configuration's ipam.type; empty if it has none. It
// never fails: what only cleans up must not trip over the rest.
func (c *Call) IPAMType() string {
	var conf struct {
		IPAM struct {
			Type string `json:"type"`
		} `json:"ipam"`
	}
	_ = json.Unmarshal(c.Stdin, &conf)
	return conf.IPAM.Type
}

// Pool returns the pool that the configuration's ipam section describes, and
// the addresses the runtime asks for.
func (c *Call) Pool() (*libnet.Pool, []netip.Addr, error) {
	var conf ipamConf
	if err := Unmarshal(c.Stdin, &conf); err != nil {
		return nil, nil, err
	}
	if conf.IPAM == nil {
		return nil, nil, badKey("ipam", "missing", "want an object with ranges or a subnet")
	}
	sets, err := conf.sets()
	if err != nil {
		return nil, nil, err
	}
	if err := c.allowSets(sets); err != nil {
		return nil, nil, err
	}
	extra, err := conf.IPAM.extra()
	if err != nil {
		return nil, nil, err
	}
	requested, err := conf.requested(c.Args)
	if err != nil {
		return nil, nil, err
	}
	pool, err := libnet.NewPool(ipamstore.Config{Network: c.Network, DataDir: conf.IPAM.DataDir, Sets: sets}, extra)
	return pool, requested, err
}

// LoosePool returns a pool that can only take addresses back. It does not look
// at the rest of the configuration: one that was edited after ADD must not keep
// DEL from its work (spec 1.1.0, section 4, DEL).
func (c *Call) LoosePool() (*libnet.Pool, error) {
	var conf struct {
		IPAM struct {
			DataDir string `json:"dataDir"`
		} `json:"ipam"`
	}
	_ = json.Unmarshal(c.Stdin, &conf)
	return libnet.NewClosedPool(c.Network, conf.IPAM.DataDir)
}

// AllowNoAddresses refuses a configuration without addresses whose version has
// no result that could say so.
func (c *Call) AllowNoAddresses() error {
	if ok, err := version.GreaterThanOrEqualTo(c.Version, "0.3.0"); ok || err != nil {
		return err
	}
	return badKey("cniVersion", quote(c.Version), "a result before 0.3.0 must have an address: add an ipam section, or use 0.3.0 or later")
}

// sets gathers the ranges of the runtime, of the legacy single range and of
// the configuration, in the order host-local has them.
func (conf *ipamConf) sets() ([]ipamstore.RangeSet, error) {
	sets, err := parseSets("runtimeConfig.ipRanges", conf.RuntimeConfig.IPRanges)
	if err != nil {
		return nil, err
	}
	if single := conf.IPAM.rangeConf; single.Subnet != "" {
		r, err := single.parse("ipam")
		if err != nil {
			return nil, err
		}
		sets = append(sets, ipamstore.RangeSet{r})
	}
	more, err := parseSets("ipam.ranges", conf.IPAM.Ranges)
	if err != nil {
		return nil, err
	}
	if sets = append(sets, more...); len(sets) == 0 {
		return nil, badKey("ipam.ranges", "missing", `want a list as [[{"subnet": "10.1.0.0/24"}]]`)
	}
	return sets, nil
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

// parseSets reads a list of lists of ranges. A flat list of ranges, as go-cni's
// helper sends it, is a list of sets of one.
func parseSets(key string, data json.RawMessage) ([]ipamstore.RangeSet, error) {
	var list []json.RawMessage
	if err := unmarshalKey(key, data, &list); len(data) > 0 && err != nil {
		return nil, err
	}
	var sets []ipamstore.RangeSet
	for i, item := range list {
		ranges := make([]rangeConf, 1)
		var err error
		if at := fmt.Sprintf("%s[%d]", key, i); item[0] == '{' {
			err = unmarshalKey(at, item, &ranges[0])
		} else {
			err = unmarshalKey(at, item, &ranges)
		}
		if err != nil {
			return nil, err
		}
		var set ipamstore.RangeSet
		for j, r := range ranges {
			parsed, err := r.parse(fmt.Sprintf("%s[%d][%d]", key, i, j))
			if err != nil {
				return nil, err
			}
			set = append(set, parsed)
		}
		sets = append(sets, set)
	}
	return sets, nil
}

func (r rangeConf) parse(key string) (ipamstore.Range, error) {
	subnet, err := netip.ParsePrefix(r.Subnet)
	if err != nil {
		return ipamstore.Range{}, badKey(key+".subnet", quote(r.Subnet), `want a prefix as "10.1.0.0/24" or "fd00:1::/64"`)
	}
	out := ipamstore.Range{Subnet: subnet}
	for _, f := range []struct {
		key, value string
		to         *netip.Addr
	}{{"rangeStart", r.RangeStart, &out.Start}, {"rangeEnd", r.RangeEnd, &out.End}, {"gateway", r.Gateway, &out.Gateway}} {
		if f.value == "" {
			continue
		}
		if *f.to, err = netip.ParseAddr(f.value); err != nil {
			return out, badKey(key+"."+f.key, quote(f.value), `want an address as "10.1.0.1" or "fd00:1::1"`)
		}
	}
	return out, nil
}

// requested returns the addresses the runtime asks for, each once. All three
// sources count, as in host-local.
func (conf *ipamConf) requested(args Args) ([]netip.Addr, error) {
	type source struct{ key, value string }
	var all []source
	if ip := args["IP"]; ip != "" {
		all = append(all, source{"CNI_ARGS IP", ip})
	}
	for _, ip := range conf.Args.CNI.IPs {
		all = append(all, source{"args.cni.ips", ip})
	}
	for _, ip := range conf.RuntimeConfig.IPs {
		all = append(all, source{"runtimeConfig.ips", ip})
	}
	var out []netip.Addr
	seen := map[netip.Addr]bool{}
	for _, s := range all {
		host, _, _ := strings.Cut(s.value, "/")
		a, err := netip.ParseAddr(host)
		if err != nil {
			return nil, badKey(s.key, quote(s.value), `want an address as "10.1.0.5" or "10.1.0.5/24"`)
		}
		if a = a.Unmap(); !seen[a] {
			seen[a] = true
			out = append(out, a)
		}
	}
	return out, nil
}

// extra returns what goes with every address: routes and name servers.
func (s *ipamSection) extra() (libnet.Addressing, error) {
	var extra libnet.Addressing
	for i, raw := range s.Routes {
		var r types.Route
		if err := json.Unmarshal(raw, &r); err != nil || r.Dst.IP == nil {
			return extra, badKey(fmt.Sprintf("ipam.routes[%d]", i), string(raw), `want as {"dst": "10.2.0.0/16", "gw": "10.1.0.1"}; gw, mtu, advmss, priority, table and scope are optional`)
		}
		extra.Routes = append(extra.Routes, routeOf(&r))
	}
	if s.ResolvConf == "" {
		return extra, nil
	}
	dns, err := readResolvConf(s.ResolvConf)
	if err != nil {
		return extra, badKey("ipam.resolvConf", quote(s.ResolvConf), err.Error())
	}
	extra.DNS = dns
	return extra, nil
}

func badKey(key, value, want string) error {
	return codef(types.ErrInvalidNetworkConfig, "%s: %s: %s", key, value, want)
}

func quote(s string) string {
	if s == "" {
		return "missing"
	}
	return fmt.Sprintf("%q", s)
}
