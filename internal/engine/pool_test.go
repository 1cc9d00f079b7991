package engine

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// A network found again by its name has the pool it was made with, all keys of
// it, and one whose pool was changed is recorded anew.
func TestRecordKeepsPool(t *testing.T) {
	plain := ipamstore.Config{
		Network: "net1", DataDir: t.TempDir(),
		Sets: []ipamstore.RangeSet{{{Subnet: netip.MustParsePrefix("10.1.0.0/24")}}},
	}
	full := plain
	full.Exclude = []netip.Prefix{netip.MustParsePrefix("10.1.0.64/26")}
	full.Aux = map[string]netip.Addr{"nas": netip.MustParseAddr("10.1.0.9")}
	full.Strategy, full.Sticky, full.Cooldown = ipamstore.StrategyHash, true, 90*time.Second
	full.RebootPolicy, full.WarnAt = ipamstore.RebootKeep, 80
	fields, unset := reflect.ValueOf(full), map[string]bool{"Dead": true, "InUse": true, "LockTimeout": true, "BootID": true}
	for i := range fields.NumField() {
		if name := fields.Type().Field(i).Name; fields.Field(i).IsZero() != unset[name] {
			t.Errorf("Config.%s is new: keep it in SavedPool of internal/address/pool.go and set it here, or say in unset that it is not kept", name)
		}
	}
	prints := map[string]bool{}
	for _, want := range []ipamstore.Config{plain, full} {
		pool, err := address.NewPool(want, model.Addressing{})
		if err != nil {
			t.Fatal(err)
		}
		n := &Network{def: plan.Network{Name: "net1"}, ipam: pool}
		prints[n.fingerprint()] = true
		rec, err := n.record()
		if err != nil {
			t.Fatal(err)
		}
		var saved SavedConfig
		if err := json.Unmarshal(rec.Config, &saved); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, saved.Pool.Config("net1"), cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		again, err := (&Controller{}).networkOf(rec)
		if err != nil {
			t.Fatal(err)
		}
		if got := again.fingerprint(); got != n.fingerprint() {
			t.Errorf("found again with fingerprint %s, made with %s", got, n.fingerprint())
		}
	}
	if len(prints) != 2 {
		t.Error("two pools have one fingerprint")
	}
}
