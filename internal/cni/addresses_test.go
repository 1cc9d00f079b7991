package cni

import (
	"fmt"
	"strings"
	"testing"
)

func TestExpectedAddresses(t *testing.T) {
	for prev, want := range map[string]string{
		``: "[]",
		`{"cniVersion":"1.1.0","ips":[{"address":"10.1.0.2/24"},{"address":"fd01::2/64"}]}`: "[10.1.0.2 fd01::2]",
		`{"cniVersion":"1.1.0","interfaces":[{"name":"v"},{"name":"eth0","sandbox":"/ns"},{"name":"eth1","sandbox":"/ns"}],
			"ips":[{"address":"10.1.0.2/24","interface":1},{"address":"10.1.0.3/24","interface":2}]}`: "[10.1.0.2]",
		`{"cniVersion":"0.2.0","ip4":{"ip":"10.1.0.2/24"}}`: "[10.1.0.2]",
	} {
		keys := `"ipam":{}`
		if prev != "" {
			keys += `,"prevResult":` + prev
		}
		call := callWith(t, "1.1.0", keys)
		call.IfName = "eth0"
		got, err := call.ExpectedAddresses()
		if fmt.Sprint(got) != want || err != nil {
			t.Errorf("%s: %v, %v; want %s", prev, got, err, want)
		}
	}
}

// A result before 0.3.0 has one address of each family at most, and one at least.
func TestOldVersionsHaveOneAddressPerFamily(t *testing.T) {
	for _, tt := range []struct {
		version string
		v4, v6  int
		says    string
	}{
		{"1.1.0", 2, 0, ""}, {"1.1.0", 0, 0, ""}, {"0.2.0", 1, 1, ""}, {"0.2.0", 0, 1, ""},
		{"0.2.0", 2, 0, "one address per family"}, {"0.1.0", 1, 2, "one address per family"}, {"0.2.0", 0, 0, "must have an address"},
	} {
		err := (&Call{Version: tt.version}).AllowAddresses(tt.v4, tt.v6)
		if (err == nil) != (tt.says == "") || err != nil && (!strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), tt.version)) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

func FuzzArgs(f *testing.F) {
	f.Add("A=B;C=D")
	f.Add("IgnoreUnknown=1;K8S_POD_NAME=x")
	f.Fuzz(func(_ *testing.T, s string) {
		args, err := parseArgs(s)
		if err == nil {
			(&Call{Args: args}).Workload()
		}
	})
}
