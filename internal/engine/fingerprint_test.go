package engine

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/wireguard"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// Every field of a network's configuration and of its pool counts: set alone,
// it makes another fingerprint than any other does; but what no record has.
func TestFingerprintCountsEveryField(t *testing.T) {
	var config model.NetworkConfig
	var pool address.SavedPool
	seen := map[string]string{fingerprint(config, &pool): "nothing"}
	check := func(field string) {
		print := fingerprint(config, &pool)
		if other, dup := seen[print]; dup {
			t.Errorf("%s has the fingerprint of %s", field, other)
		}
		seen[print] = field
	}
	eachLeaf(reflect.ValueOf(&config).Elem(), "config", check)
	eachLeaf(reflect.ValueOf(&pool).Elem(), "pool", check)
	if len(seen) < 60 {
		t.Errorf("only %d fields were looked at", len(seen))
	}
}

// eachLeaf sets one value of v after the other, with one element in each list
// that leads to it, calls fn, and puts it back.
func eachLeaf(v reflect.Value, name string, fn func(name string)) {
	if v.CanSet() { // but an embedded struct without a name of its own
		defer v.SetZero()
	}
	set := func(x any) { v.Set(reflect.ValueOf(x).Convert(v.Type())); fn(name) }
	switch v.Type() {
	case reflect.TypeFor[netip.Addr]():
		set(netip.MustParseAddr("192.0.2.7"))
		set(netip.MustParseAddr("::ffff:192.0.2.7"))
		return
	case reflect.TypeFor[wireguard.Key]():
		set(wireguard.Key{1})
		return
	case reflect.TypeFor[netip.Prefix]():
		set(netip.MustParsePrefix("192.0.2.0/25"))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("json") == "-" {
				continue // no part of the configuration: it changes without it
			}
			eachLeaf(v.Field(i), name+"."+v.Type().Field(i).Name, fn)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fn(name)
		eachLeaf(v.Index(0), name+"[0]", fn)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("a"), reflect.Zero(v.Type().Elem()))
		fn(name)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fn(name)
	case reflect.Bool:
		set(true)
	case reflect.String:
		set("x")
	default:
		set(300)
	}
}

// BenchmarkFingerprint is the first fingerprint that a process asks for, and
// one that is taken of the configuration as encoding/json writes it.
func BenchmarkFingerprint(b *testing.B) {
	pool, err := address.NewPool(ipamstore.Config{Network: "net1", DataDir: b.TempDir(), Sets: []ipamstore.RangeSet{{{Subnet: netip.MustParsePrefix("10.1.0.0/16")}}}}, model.Addressing{})
	if err != nil {
		b.Fatal(err)
	}
	n := &Network{def: plan.Network{Name: "net1", Config: model.NetworkConfig{Bridge: "br0", Gateway: true, Masquerade: true}}, ipam: pool}
	lntest.Cold(b, map[string]func(){
		"hash":          func() { n.fingerprint() },
		"encoding/json": func() { _, _ = n.record() },
	})
}
