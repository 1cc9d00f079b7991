package netconf

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
	"github.com/libnet-cni/libnet/pkg/ipamstore/subnets"
)

// maxCooldown bounds ipam.cooldown, in seconds: a year.
const maxCooldown = 365 * 24 * 3600

// Pool is an ipam section of the type "ipam-ln".
type Pool struct {
	Config ipamstore.Config
	// Wants says of sets whose subnet is to be chosen what it shall be, by the index in
	// Config.Sets.
	Wants map[int]subnets.Request
	// Extra goes with every address: routes and name servers.
	Extra model.Addressing
	// Requested are the addresses that the runtime asks for, each once.
	Requested []netip.Addr

	ofRuntime int  // sets of runtimeConfig.ipRanges, which come first
	single    bool // the next set is the range of ipam itself
}

// ReadPool reads an ipam section of the type "ipam-ln".
func ReadPool(s Source) (*Pool, error) {
	v := read(s.Conf, table[:])
	return readSets(s, sections{ipam: inside(v[keyIPAM], ipamTable), runtime: inside(v[keyRuntimeConfig], runtimeTable), args: readArgs(v)})
}

// sections are the objects inside a configuration that several of its readers need.
type sections struct{ ipam, runtime, args values }

// readSets reads the section with its range sets.
func readSets(s Source, in sections) (*Pool, error) {
	ipam := in.ipam
	var l rangeList
	l.addSets(in.runtime[capIPRanges])
	ofRuntime := len(l.sets)
	single := !ipam[ipamSubnet].Missing()
	if single { // before the list, as host-local has it
		l.addSet(values{rangeSubnet: ipam[ipamSubnet], rangeStart: ipam[ipamRangeStart], rangeEnd: ipam[ipamRangeEnd], rangeGateway: ipam[ipamGateway]})
	}
	l.addSets(ipam[ipamRanges])
	p, err := readPool(s, in)
	if err != nil {
		return nil, err
	}
	p.Config.Sets, p.Wants, p.ofRuntime, p.single = l.sets, l.wants, ofRuntime, single
	if len(p.Config.Sets) == 0 {
		return nil, badKey(ipam[ipamRanges].Place(), "missing", `want a list as [[{"subnet": "10.1.0.0/24"}]]`)
	}
	return p, nil
}

// readPool reads the section without its range sets.
func readPool(s Source, in sections) (*Pool, error) {
	ipam := in.ipam
	p := &Pool{Config: ipamstore.Config{Network: s.Network}}
	ipam[ipamStrict].Bool(new(bool))
	ipam[ipamDataDir].String(&p.Config.DataDir)
	readPolicy(ipam, &p.Config)
	p.Extra = readExtra(ipam, s.Conf)
	p.Requested = requested(s, in)
	return p, s.Conf.Err()
}

// Families returns how many addresses of each family the range sets give.
func (p *Pool) Families() (v4, v6 int) {
	for i, set := range p.Config.Sets {
		want, auto := p.Wants[i]
		switch {
		case auto && want.IPv6, !auto && len(set) > 0 && set[0].Subnet.Addr().Is6():
			v6++
		case auto || len(set) > 0:
			v4++
		}
	}
	return v4, v6
}

// rangeList is range sets, and of those whose subnet is to be chosen what it shall be, by the
// set's index.
type rangeList struct {
	sets  []ipamstore.RangeSet
	wants map[int]subnets.Request
}

// addSets reads a list of lists of ranges. A flat list of ranges, as go-cni's helper sends it,
// is a list of sets of one.
func (l *rangeList) addSets(list jsonr.Value) {
	for _, item := range list.Items() {
		if item.IsObject() {
			l.addSet(inside(item, rangeTable))
			continue
		}
		var set []values
		for _, r := range item.Items() {
			set = append(set, inside(r, rangeTable))
		}
		l.addSet(set...)
	}
}

func (l *rangeList) addSet(ranges ...values) {
	var set ipamstore.RangeSet
	for _, v := range ranges {
		r := ipamstore.Range{Start: v[rangeStart].Addr(), End: v[rangeEnd].Addr(), Gateway: v[rangeGateway].Addr()}
		if want, auto := readAuto(v[rangeSubnet]); auto {
			if l.wants == nil {
				l.wants = map[int]subnets.Request{}
			}
			l.wants[len(l.sets)] = want
		} else {
			r.Subnet = v[rangeSubnet].Prefix()
		}
		set = append(set, r)
	}
	l.sets = append(l.sets, set)
}

// readAuto reads a subnet that is to be chosen; false for one that is given.
func readAuto(v jsonr.Value) (subnets.Request, bool) {
	s, _ := v.Text()
	if !strings.HasPrefix(s, "auto") {
		return subnets.Request{}, false
	}
	want, err := subnets.ParseRequest(s)
	if err != nil {
		v.Refuse(`"auto" or "auto6", or one of these with a length as "auto/24" and "auto6/64"`)
	}
	return want, true
}

// readPolicy reads the keys that host-local does not have.
func readPolicy(v values, cfg *ipamstore.Config) {
	cfg.Exclude = readExclude(v[ipamExclude])
	cfg.Aux = readAux(v[ipamAuxAddresses])
	v[ipamSticky].Bool(&cfg.Sticky)
	v[ipamWarnAt].Int(&cfg.WarnAt)
	if cfg.WarnAt < 0 || cfg.WarnAt > 100 {
		v[ipamWarnAt].Refuse("a percentage from 1 to 100, or 0 for none")
	}
	seconds := 0
	if v[ipamCooldown].Int(&seconds); seconds < 0 || seconds > maxCooldown {
		v[ipamCooldown].Refuse(fmt.Sprintf("whole seconds from 0 to %d", maxCooldown))
	}
	cfg.Cooldown = time.Duration(seconds) * time.Second
	cfg.Strategy = oneOf(v[ipamStrategy], ipamstore.StrategyNext, ipamstore.StrategyLowest, ipamstore.StrategyRandom, ipamstore.StrategyHash)
	cfg.RebootPolicy = oneOf(v[ipamRebootPolicy], ipamstore.RebootRelease, ipamstore.RebootKeep)
}

// readExclude reads a list of addresses and prefixes.
func readExclude(v jsonr.Value) []netip.Prefix {
	var out []netip.Prefix
	for _, item := range v.Items() {
		s, _ := item.Text()
		p, err := netip.ParsePrefix(s)
		if a, aErr := netip.ParseAddr(s); aErr == nil {
			p, err = netip.PrefixFrom(a.Unmap().WithZone(""), a.Unmap().BitLen()), nil
		}
		if err != nil || p != p.Masked() || p.Addr().Is4In6() {
			item.Refuse(`an address as "10.1.0.5", or a prefix without host bits as "10.1.0.64/26"`)
		}
		out = append(out, p)
	}
	return out
}

// readAux reads addresses by name.
func readAux(v jsonr.Value) map[string]netip.Addr {
	var aux map[string]netip.Addr
	for v := range v.Object().Values() {
		if aux == nil {
			aux = map[string]netip.Addr{}
		}
		if a := v.Addr(); a.IsValid() {
			aux[v.Name()] = a
		} else {
			v.Refuse(`an address as "10.1.0.9"`)
		}
	}
	return aux
}

// requested returns the addresses the runtime asks for, each once. All three sources count, as
// in host-local.
func requested(s Source, in sections) []netip.Addr {
	var out []netip.Addr
	seen := map[netip.Addr]bool{}
	add := func(key string, texts ...string) {
		for _, text := range texts {
			host, _, _ := strings.Cut(text, "/")
			a, err := netip.ParseAddr(host)
			if err != nil {
				s.Conf.Fail(badKey(key, fmt.Sprintf("%q", text), `want an address as "10.1.0.5" or "10.1.0.5/24"`))
			}
			if a = a.Unmap(); !seen[a] {
				out, seen[a] = append(out, a), true
			}
		}
	}
	if ip := s.Args["IP"]; ip != "" {
		add("CNI_ARGS IP", ip)
	}
	arg, capability := in.args[argIPs], in.runtime[capIPs]
	for _, v := range []jsonr.Value{arg, capability} {
		if texts := v.Strings(); len(texts) > 0 {
			add(v.Place(), texts...)
		}
	}
	return out
}

// readExtra reads what goes with every address.
func readExtra(ipam values, o *jsonr.Object) model.Addressing {
	var extra model.Addressing
	for _, item := range ipam[ipamRoutes].Items() {
		extra.Routes = append(extra.Routes, readRoute(inside(item, routeTable)))
	}
	var file string
	if ipam[ipamResolvConf].String(&file); file == "" {
		return extra
	}
	dns, err := readResolvConf(file)
	if err != nil {
		o.Fail(badKey(ipam[ipamResolvConf].Place(), fmt.Sprintf("%q", file), err.Error()))
	}
	extra.DNS = dns
	return extra
}

func readRoute(v values) model.Route {
	r := model.Route{Dst: v[routeDst].Prefix(), Gateway: v[routeGW].Addr(), Table: v[routeTableKey].OptionalInt(), Scope: v[routeScope].OptionalInt()}
	v[routeMTU].Int(&r.MTU)
	v[routeAdvMSS].Int(&r.AdvMSS)
	v[routePriority].Int(&r.Priority)
	return r
}

// NameError gives an error about the pool's configuration the key that the configuration has
// for it; other errors, and nil, stay as they are. The store counts range sets of all three
// sources through.
func (p *Pool) NameError(err error) error {
	var conf *ipamstore.ConfigError
	if !errors.As(err, &conf) || conf.Key == "name" {
		return err
	}
	key := table[keyIPAM].Name + "." + conf.Key
	if rest, ok := strings.CutPrefix(conf.Key, "ranges["); ok {
		key = p.rangeKey(rest)
	}
	return badKey(key, strconv.Quote(conf.Value), conf.Msg)
}

// rangeKey finds the source of range set n; at is "n]" and what follows.
func (p *Pool) rangeKey(at string) string {
	number, rest, _ := strings.Cut(at, "]")
	n, _ := strconv.Atoi(number)
	if n < p.ofRuntime {
		return fmt.Sprintf("runtimeConfig.ipRanges[%d]%s", n, rest)
	}
	n -= p.ofRuntime
	if p.single {
		if n == 0 {
			if _, field, ok := strings.Cut(rest, "."); ok {
				return "ipam." + field
			}
			return "ipam.subnet"
		}
		n--
	}
	return fmt.Sprintf("ipam.ranges[%d]%s", n, rest)
}

// PoolCleanup is what taking addresses back depends on: where they are, and how long they rest.
type PoolCleanup = ipamstore.Config

// LoosePool reads what DEL and GC need of an ipam section. An unreadable key counts as
// missing.
func LoosePool(s Source) PoolCleanup {
	cfg := ipamstore.Config{Network: s.Network}
	ipam := inside(s.Conf.Apart().At(table[keyIPAM].Name), ipamTable)
	if dir, _ := ipam[ipamDataDir].Text(); canBe(dir) {
		cfg.DataDir = dir
	}
	seconds := 0
	if ipam[ipamCooldown].Int(&seconds); seconds >= 0 && seconds <= maxCooldown {
		cfg.Cooldown = time.Duration(seconds) * time.Second
	}
	if p := oneOf(ipam[ipamRebootPolicy], ipamstore.RebootRelease, ipamstore.RebootKeep); p == ipamstore.RebootKeep {
		cfg.RebootPolicy = p
	}
	return cfg
}
