package cni

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// maxCooldown bounds ipam.cooldown, in seconds: a year.
const maxCooldown = 365 * 24 * 3600

// readPolicy reads the keys that host-local does not have.
func readPolicy(ipam *Object, cfg *ipamstore.Config) {
	cfg.Exclude = readExclude(ipam)
	cfg.Aux = readAux(ipam.Object("auxAddresses"))
	ipam.Bool("sticky", &cfg.Sticky)
	ipam.Int("warnAt", &cfg.WarnAt)
	if cfg.WarnAt < 0 || cfg.WarnAt > 100 {
		ipam.Refuse("warnAt", "a percentage from 1 to 100, or 0 for none")
	}
	seconds := 0
	if ipam.Int("cooldown", &seconds); seconds < 0 || seconds > maxCooldown {
		ipam.Refuse("cooldown", fmt.Sprintf("whole seconds from 0 to %d", maxCooldown))
	}
	cfg.Cooldown = time.Duration(seconds) * time.Second
	cfg.Strategy = oneOf(ipam, "strategy", ipamstore.StrategyNext, ipamstore.StrategyLowest, ipamstore.StrategyRandom, ipamstore.StrategyHash)
	cfg.RebootPolicy = oneOf(ipam, "rebootPolicy", ipamstore.RebootRelease, ipamstore.RebootKeep)
}

// oneOf returns a key's value, which must be one of those allowed; the first
// of them if it is missing.
func oneOf[T ~string](o *Object, key string, allowed ...T) T {
	s := string(allowed[0])
	if o.String(key, &s); !slices.Contains(allowed, T(s)) {
		var want []string
		for _, a := range allowed {
			want = append(want, strconv.Quote(string(a)))
		}
		o.Refuse(key, strings.Join(want, " or "))
	}
	return T(s)
}

// readExclude reads a list of addresses and prefixes.
func readExclude(ipam *Object) []netip.Prefix {
	var out []netip.Prefix
	for _, item := range ipam.List("exclude") {
		s, _ := unquote(item.raw)
		p, err := netip.ParsePrefix(s)
		if a, aErr := netip.ParseAddr(s); aErr == nil {
			p, err = netip.PrefixFrom(a.Unmap().WithZone(""), a.Unmap().BitLen()), nil
		}
		if err != nil || p != p.Masked() || p.Addr().Is4In6() {
			refuseItem(item, `an address as "10.1.0.5", or a prefix without host bits as "10.1.0.64/26"`)
		}
		out = append(out, p)
	}
	return out
}

func refuseItem(i Item, want string) {
	(&Object{path: i.path, err: i.err}).refuse("", i.raw, want)
}

// readAux reads addresses by name.
func readAux(o *Object) map[string]netip.Addr {
	if len(o.keys) == 0 {
		return nil
	}
	aux := map[string]netip.Addr{}
	for _, name := range slices.Sorted(maps.Keys(o.keys)) {
		if a := o.Addr(name); a.IsValid() {
			aux[name] = a
		} else {
			o.Refuse(name, `an address as "10.1.0.9"`)
		}
	}
	return aux
}

// NamePoolError gives an error about a pool's configuration the key that this
// call's has for it; nil stays nil.
func (c *Call) NamePoolError(err error) error { return c.named(err, c.Conf.Object("ipam")) }

// named gives an error of the store's the key that the configuration has. The
// store counts range sets of all three sources through.
func (c *Call) named(err error, ipam *Object) error {
	var conf *ipamstore.ConfigError
	if !errors.As(err, &conf) || conf.Key == "name" {
		return err
	}
	key := "ipam." + conf.Key
	if rest, ok := strings.CutPrefix(conf.Key, "ranges["); ok {
		key = c.rangeKey(ipam, rest)
	}
	return badKey(key, strconv.Quote(conf.Value), conf.Msg)
}

// rangeKey finds the source of range set n; at is "n]" and what follows.
func (c *Call) rangeKey(ipam *Object, at string) string {
	number, rest, _ := strings.Cut(at, "]")
	n, _ := strconv.Atoi(number)
	runtime := len(c.Conf.Object("runtimeConfig").List("ipRanges"))
	if n < runtime {
		return fmt.Sprintf("runtimeConfig.ipRanges[%d]%s", n, rest)
	}
	n -= runtime
	if ipam.Raw("subnet") != nil {
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

// looseConfig reads what taking addresses back depends on: where they are, and
// how long they rest. What it cannot read is as if it were missing.
func (c *Call) looseConfig() ipamstore.Config {
	cfg := ipamstore.Config{Network: c.Network}
	ipam := c.Conf.apart().Object("ipam")
	var dir string
	if ipam.String("dataDir", &dir); canBe(dir) {
		cfg.DataDir = dir
	}
	seconds := 0
	if ipam.Int("cooldown", &seconds); seconds >= 0 && seconds <= maxCooldown {
		cfg.Cooldown = time.Duration(seconds) * time.Second
	}
	if p := oneOf(ipam, "rebootPolicy", ipamstore.RebootRelease, ipamstore.RebootKeep); p == ipamstore.RebootKeep {
		cfg.RebootPolicy = p
	}
	return cfg
}
