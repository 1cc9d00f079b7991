package cni

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// encodeResult writes the same as the CNI module, but that results of before 1.1.0
// have no MTU of an interface: it came with that version.
func TestWriteResult(t *testing.T) {
	five := 5
	dst := net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	results := map[string]*types100.Result{
		"empty": {CNIVersion: "1.1.0"},
		"full": {
			CNIVersion: "1.1.0",
			Interfaces: []*types100.Interface{{Name: "br0", Mac: "02:00:00:00:00:01", Mtu: 1500}, {Name: "eth0", Sandbox: `/run/"x"`}},
			IPs: []*types100.IPConfig{
				{Interface: &five, Address: net.IPNet{IP: net.IPv4(10, 1, 0, 2), Mask: net.CIDRMask(24, 32)}, Gateway: net.IPv4(10, 1, 0, 1)},
				{Address: net.IPNet{IP: net.ParseIP("fd00::2"), Mask: net.CIDRMask(64, 128)}},
			},
			Routes: []*types.Route{{Dst: dst}, {Dst: dst, GW: net.IPv4(10, 1, 0, 1), MTU: 1, AdvMSS: 2, Priority: 3, Table: &five, Scope: &five}},
			DNS:    types.DNS{Nameservers: []string{"10.0.0.1"}, Domain: "a", Search: []string{"b", "c"}, Options: []string{"d"}},
		},
	}
	for name, r := range results {
		for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
			var ours, theirs bytes.Buffer
			if err := writeResult(&ours, r, version); err != nil {
				t.Fatal(err)
			}
			converted, err := r.GetAsVersion(version)
			if err != nil {
				t.Fatal(err)
			}
			if err := converted.PrintTo(&theirs); err != nil {
				t.Fatal(err)
			}
			if has := bytes.Contains(ours.Bytes(), []byte("1500")); has != (version == "1.1.0" && name == "full") {
				t.Errorf("%s as %s: an interface has an MTU: %v", name, version, has)
			}
			want := decoded(t, theirs.Bytes())
			if links, _ := want.(map[string]any)["interfaces"].([]any); version == "1.0.0" {
				for _, l := range links {
					delete(l.(map[string]any), "mtu")
				}
			}
			if diff := cmp.Diff(want, decoded(t, ours.Bytes())); diff != "" {
				t.Errorf("%s as %s (-theirs +ours):\n%s", name, version, diff)
			}
		}
	}
}

func decoded(t *testing.T, data []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	return v
}

// BenchmarkWriteResult is the first result that a process prints, by us and by
// the CNI module.
func BenchmarkWriteResult(b *testing.B) {
	r := &types100.Result{
		CNIVersion: "1.1.0", Interfaces: []*types100.Interface{{Name: "br0"}, {Name: "veth0"}, {Name: "eth0", Sandbox: "/run/netns/c1"}},
		IPs: []*types100.IPConfig{{Interface: types100.Int(2), Address: net.IPNet{IP: net.IPv4(10, 1, 0, 2), Mask: net.CIDRMask(24, 32)}, Gateway: net.IPv4(10, 1, 0, 1)}},
	}
	lntest.Cold(b, map[string]func(){
		"jsonw":      func() { _ = writeResult(io.Discard, r, "1.1.0") },
		"cni-module": func() { _ = r.PrintTo(io.Discard) },
	})
}
