package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/pkg/libnet"
)

func call(keys string) *cni.Call {
	if keys != "" {
		keys = "," + keys
	}
	return callOf(`{"cniVersion":"1.1.0","name":"net1"` + keys + `}`)
}

// callOf is a call with this configuration; nil if it is not JSON.
func callOf(stdin string) *cni.Call {
	conf, err := cni.ParseObject([]byte(stdin))
	if err != nil {
		return nil
	}
	return &cni.Call{Version: "1.1.0", Network: "net1", Args: cni.Args{}, Stdin: []byte(stdin), Conf: conf}
}

func TestParseNetwork(t *testing.T) {
	tests := []struct {
		keys string
		want libnet.NetworkConfig
	}{
		{``, libnet.NetworkConfig{Bridge: "cni0"}},
		{`"BRIDGE":"br1","isgateway":true,"IPMasq":true`, libnet.NetworkConfig{Bridge: "br1", Gateway: true, Masquerade: true}},
		{`"isDefaultGateway":true`, libnet.NetworkConfig{Bridge: "cni0", Gateway: true, DefaultGateway: true}},
		{`"mtu":1400`, libnet.NetworkConfig{Bridge: "cni0", MTU: 1400}},
		{`"mtu":"auto"`, libnet.NetworkConfig{Bridge: "cni0", AutoMTU: true}},
		{`"icc":false,"internal":true`, libnet.NetworkConfig{Bridge: "cni0", NoICC: true, Internal: true}},
		{`"icc":true,"vendorKey":{"x":[1]}`, libnet.NetworkConfig{Bridge: "cni0"}},
		{`"vlan":100,"vlanTrunk":[{"id":5},{"minID":10,"maxID":20}],"preserveDefaultVlan":true`, libnet.NetworkConfig{
			Bridge: "cni0", VLAN: 100, VLANTrunk: []libnet.VLANRange{{Min: 5, Max: 5}, {Min: 10, Max: 20}}, PreserveDefaultVLAN: true}},
		{`"hairpinMode":true,"macspoofchk":true,"enabledad":true,"portIsolation":true,"forceAddress":true`, libnet.NetworkConfig{
			Bridge: "cni0", Hairpin: true, SpoofCheck: true, EnableDAD: true, Isolated: true, ForceAddress: true}},
		{`"promiscMode":true,"disableContainerInterface":true`, libnet.NetworkConfig{Bridge: "cni0", Promiscuous: true, InterfaceDown: true}},
	}
	for _, tt := range tests {
		t.Run(tt.keys, func(t *testing.T) {
			c, err := parse(call(tt.keys))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, c.network); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// The capability beats args.cni, which beats CNI_ARGS.
func TestMACPrecedence(t *testing.T) {
	keys := []string{`"runtimeConfig":{"mac":"02:00:00:00:00:01"}`, `"args":{"cni":{"mac":"02:00:00:00:00:02"}}`}
	for i := 0; i <= len(keys); i++ {
		c := call(strings.Join(keys[i:], ","))
		c.Args["MAC"] = "02:00:00:00:00:03"
		got, err := parse(c)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("02:00:00:00:00:0%d", i+1); got.mac.String() != want {
			t.Errorf("with %v: %s, want %s", keys[i:], got.mac, want)
		}
	}
}

func TestDNSReplacesTheIPAMs(t *testing.T) {
	for keys, want := range map[string]bool{``: false, `"dns":{}`: false, `"dns":{"search":[]}`: true, `"dns":{"domain":"x"}`: true} {
		c, err := parse(call(keys))
		if err != nil || (c.dns != nil) != want {
			t.Errorf("%s: replaces %v (%v), want %v", keys, c.dns != nil, err, want)
		}
	}
}

// Every wrong value is named with its key.
func TestParseRefuses(t *testing.T) {
	for keys, says := range map[string]string{
		`"mtu":"big"`:                                         `mtu: "big"`,
		`"mtu":1.5`:                                           `mtu: 1.5`,
		`"vlan":"x"`:                                          `vlan: "x"`,
		`"isGateway":"yes"`:                                   `isGateway: "yes"`,
		`"bridge":7`:                                          `bridge: 7`,
		`"vlanTrunk":[{"minID":5}]`:                           `vlanTrunk[0]`,
		`"vlanTrunk":[{"id":4095}]`:                           `4095`,
		`"vlanTrunk":{}`:                                      `vlanTrunk: {}: want a list`,
		`"ipMasqBackend":"ebtables"`:                          `ipMasqBackend: "ebtables"`,
		`"runtimeConfig":{"mac":"x"}`:                         `runtimeConfig.mac: "x"`,
		`"args":{"cni":{"mac":"01:00:5e:00:00:01"}}`:          `args.cni.mac: "01:00:5e:00:00:01"`,
		`"runtimeConfig":{"mac":"00:00:00:00:00:00"}`:         `runtimeConfig.mac`,
		`"ipam":{"type":"ipam-ln"}`:                           `ipam.ranges: missing`,
		`"ipam":{"type":"ipam-ln","ranges":[[{"subnet":5}]]}`: `subnet: 5`,
		`"ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.1.0.0"}]]}`: `ipam.ranges[0][0].subnet: "10.1.0.0"`,
	} {
		_, err := parse(call(keys))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v, want one with %q", keys, err, says)
		}
	}
}

// DEL reads what it can of a configuration that ADD would refuse.
func TestLoose(t *testing.T) {
	c, err := loose(call(`"bridge":"br1","stateDir":"/x","mtu":"big","vlan":{},"ipam":{"type":"ipam-ln","ranges":7}`))
	if err != nil || c.network.Bridge != "br1" || c.stateDir != "/x" || c.ipam == nil {
		t.Errorf("%+v, %v", c, err)
	}
	c, err = loose(call(`"bridge":5,"stateDir":[],"ipam":"none"`))
	if err != nil || c.network.Bridge != "cni0" || c.stateDir != "" || c.ipam != nil {
		t.Errorf("%+v, %v", c, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"cniVersion":"1.1.0","name":"n","mtu":"auto","vlanTrunk":[{"id":5}],"ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.1.0.0/24"}]]}}`)
	f.Add(`{"name":"n","icc":false,"runtimeConfig":{"mac":"02:00:00:00:00:01"},"dns":{"search":["x"]}}`)
	f.Fuzz(func(t *testing.T, stdin string) {
		c := callOf(stdin)
		if c == nil {
			return
		}
		_, _ = parse(c)
		if _, err := loose(c); err != nil {
			t.Errorf("loose: %v", err)
		}
	})
}
