package netconf

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

func TestPolicyKeys(t *testing.T) {
	none := ipamstore.Config{Strategy: ipamstore.StrategyNext, RebootPolicy: ipamstore.RebootRelease}
	all := ipamstore.Config{
		Exclude:  []netip.Prefix{netip.MustParsePrefix("10.1.0.5/32"), netip.MustParsePrefix("10.1.0.64/26"), netip.MustParsePrefix("fd01::5/128")},
		Aux:      map[string]netip.Addr{"Router": netip.MustParseAddr("10.1.0.9"), "nas": netip.MustParseAddr("10.1.0.10")},
		Strategy: ipamstore.StrategyHash, Sticky: true, Cooldown: 90 * time.Second,
		RebootPolicy: ipamstore.RebootKeep, WarnAt: 80,
	}
	for _, tt := range []struct {
		keys string
		want ipamstore.Config
	}{
		{``, none},
		{`"exclude":null,"auxAddresses":null,"strategy":null,"sticky":null,"cooldown":null,"rebootPolicy":null,"warnAt":null`, none},
		{`"exclude":["10.1.0.5","10.1.0.64/26","fd01::5"],"auxAddresses":{"Router":"10.1.0.9","nas":"10.1.0.10"},
			"STRATEGY":"hash","sticky":true,"cooldown":90,"rebootpolicy":"keep","warnAt":80`, all},
	} {
		var got ipamstore.Config
		s := source(t, `"ipam":{`+tt.keys+`}`)
		if readPolicy(inside(s.Conf.At("ipam"), ipamTable), &got); s.Conf.Err() != nil {
			t.Errorf("%s: %v", tt.keys, s.Conf.Err())
		}
		if diff := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.keys, diff)
		}
	}
}

// Each wrong value is of code 7, with its key as the configuration has it, and
// the value.
func TestWrongIPAMKeys(t *testing.T) {
	const good = `"ranges":[[{"subnet":"10.1.0.0/24"}]],`
	for _, tt := range []struct{ ipam, want string }{
		{good + `"exclude":"10.1.0.5"`, `ipam.exclude: "10.1.0.5": want a list`},
		{good + `"exclude":["10.1.0.5",7]`, `ipam.exclude[1]: 7: want an address`},
		{good + `"exclude":["10.1.0.5/24"]`, `ipam.exclude[0]: "10.1.0.5/24": want an address`},
		{good + `"exclude":["10.1.0"]`, `ipam.exclude[0]: "10.1.0": `},
		{good + `"auxAddresses":["10.1.0.9"]`, `ipam.auxAddresses: ["10.1.0.9"]: want an object`},
		{good + `"auxAddresses":{"nas":"ten"}`, `ipam.auxAddresses.nas: "ten": want an address`},
		{good + `"auxAddresses":{"nas":""}`, `ipam.auxAddresses.nas: "": want an address`},
		{good + `"auxAddresses":{"nas":"10.9.0.9"}`, `ipam.auxAddresses.nas: "10.9.0.9": is in none of the subnets`},
		{good + `"strategy":"best"`, `ipam.strategy: "best": want "next" or "lowest" or "random" or "hash"`},
		{good + `"sticky":"yes"`, `ipam.sticky: "yes": want true or false`},
		{good + `"cooldown":-1`, `ipam.cooldown: -1: want whole seconds`},
		{good + `"cooldown":1.5`, `ipam.cooldown: 1.5: want a whole number`},
		{good + `"cooldown":"90s"`, `ipam.cooldown: "90s": want a whole number`},
		{good + `"cooldown":9223372036854775807`, `ipam.cooldown: 9223372036854775807: `},
		{good + `"rebootPolicy":"forget"`, `ipam.rebootPolicy: "forget": want "release" or "keep"`},
		{good + `"warnAt":101`, `ipam.warnAt: 101: want a percentage`},
		{`"ranges":[[{"subnet":"10.1.0.0/24","rangeStart":"10.2.0.1"}]]`, `ipam.ranges[0][0].rangeStart: "10.2.0.1": is not in subnet 10.1.0.0/24`},
		{`"ranges":[[{"subnet":"10.1.0.9/24"}]]`, `ipam.ranges[0][0].subnet: "10.1.0.9/24": has host bits set`},
		{`"subnet":"10.1.0.0/24","rangeEnd":"10.2.0.1"`, `ipam.rangeEnd: "10.2.0.1": is not in subnet`},
		{`"subnet":"10.1.0.0/24","ranges":[[{"subnet":"10.1.0.0/25"}]]`, `ipam.ranges[0][0]: "10.1.0.1-10.1.0.126": overlaps`},
		{`"subnet":"10.1.0.0/24","ranges":[[{"subnet":"10.2.0.0/24"}],[]]`, `ipam.ranges[1]: "[]": has no range`},
	} {
		err := made(source(t, `"ipam":{`+tt.ipam+`}`))
		if !isConfigError(err) || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s:\n got %v\nwant %s", tt.ipam, err, tt.want)
		}
	}
	err := made(source(t, `"ipam":{`+good+`"subnet":"10.2.0.0/24"},"runtimeConfig":{"ipRanges":[[{"subnet":"10.3.0.0/24","rangeEnd":"10.4.0.1"}]]}`))
	if err == nil || !strings.HasPrefix(err.Error(), "runtimeConfig.ipRanges[0][0].rangeEnd: ") {
		t.Errorf("a range of the runtime: %v", err)
	}
}

// isConfigError says that an error becomes code 7.
func isConfigError(err error) bool {
	var value *jsonr.Error
	var conf *model.ConfigError
	return errors.As(err, &value) || errors.As(err, &conf)
}

// DEL takes what it can read, whatever stands beside it.
func TestLooseKeys(t *testing.T) {
	for _, tt := range []struct {
		ipam string
		want ipamstore.Config
	}{
		{`{"dataDir":"/d","cooldown":5,"rebootPolicy":"keep"}`, ipamstore.Config{DataDir: "/d", Cooldown: 5 * time.Second, RebootPolicy: ipamstore.RebootKeep}},
		{`{"dataDir":"/d","COOLDOWN":5,"rebootPolicy":7}`, ipamstore.Config{DataDir: "/d", Cooldown: 5 * time.Second}},
		{`{"dataDir":7,"cooldown":"x","rebootPolicy":"keep"}`, ipamstore.Config{RebootPolicy: ipamstore.RebootKeep}},
		{`{"dataDir":"\u0000","cooldown":-5,"rebootPolicy":"x"}`, ipamstore.Config{}},
		{`{"strategy":7,"exclude":7,"cooldown":5}`, ipamstore.Config{Cooldown: 5 * time.Second}},
		{`"none"`, ipamstore.Config{}},
	} {
		s := source(t, `"ipam":`+tt.ipam)
		tt.want.Network = "net1"
		if diff := cmp.Diff(tt.want, LoosePool(s)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.ipam, diff)
		}
		if _, err := address.NewPool(LoosePool(s), model.Addressing{}); err != nil {
			t.Errorf("%s: %v", tt.ipam, err)
		}
	}
}
