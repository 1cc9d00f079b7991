package plugin

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/model"
)

// parse and loose are those of bridge-ln.
func parse(c *cni.Call) (*conf, error) { return bridge.parse(c) }

func loose(c *cni.Call) (*conf, error) { return bridge.loose(c) }

func call(keys string) *cni.Call {
	if keys != "" {
		keys = "," + keys
	}
	return callOf(`{"cniVersion":"1.1.0","name":"net1"` + keys + `}`)
}

// callOf is a call with this configuration; nil if it is not JSON.
func callOf(stdin string) *cni.Call {
	conf, err := jsonr.Parse([]byte(stdin))
	if err != nil {
		return nil
	}
	return &cni.Call{Version: "1.1.0", Network: "net1", Args: cni.Args{}, Stdin: []byte(stdin), Conf: conf}
}

func TestParseNetwork(t *testing.T) {
	tests := []struct {
		keys string
		want model.NetworkConfig
	}{
		{``, model.NetworkConfig{Bridge: "cni0"}},
		{`"BRIDGE":"br1","isgateway":true,"IPMasq":true`, model.NetworkConfig{Bridge: "br1", Gateway: true, Masquerade: true}},
		{`"isDefaultGateway":true`, model.NetworkConfig{Bridge: "cni0", Gateway: true, DefaultGateway: true}},
		{`"mtu":1400`, model.NetworkConfig{Bridge: "cni0", MTU: 1400}},
		{`"mtu":"auto"`, model.NetworkConfig{Bridge: "cni0", AutoMTU: true}},
		{`"icc":false,"internal":true`, model.NetworkConfig{Bridge: "cni0", NoICC: true, Internal: true}},
		{`"icc":true,"vendorKey":{"x":[1]}`, model.NetworkConfig{Bridge: "cni0"}},
		{`"masqAll":true`, model.NetworkConfig{Bridge: "cni0", MasqueradeAll: true}},
		{`"masqAll":true,"snat":false`, model.NetworkConfig{Bridge: "cni0", NoHairpin: true}},
		{`"vlan":100,"vlanTrunk":[{"id":5},{"minID":10,"maxID":20}],"preserveDefaultVlan":true`, model.NetworkConfig{
			Bridge: "cni0", VLAN: 100, VLANTrunk: []model.VLANRange{{Min: 5, Max: 5}, {Min: 10, Max: 20}}, PreserveDefaultVLAN: true}},
		{`"hairpinMode":true,"macspoofchk":true,"enabledad":true,"portIsolation":true,"forceAddress":true`, model.NetworkConfig{
			Bridge: "cni0", Hairpin: true, SpoofCheck: true, EnableDAD: true, Isolated: true, ForceAddress: true}},
		{`"promiscMode":true,"disableContainerInterface":true`, model.NetworkConfig{Bridge: "cni0", Promiscuous: true, InterfaceDown: true}},
	}
	for _, tt := range tests {
		t.Run(tt.keys, func(t *testing.T) {
			c, err := parse(call(tt.keys))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, c.Config, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// The priority of the network is its record's, that of the container the
// endpoint's.
func TestParsePriority(t *testing.T) {
	for _, tt := range []struct {
		keys               string
		network, container int
	}{
		{``, 0, 0},
		{`"gwPriority":-7`, -7, -7},
		{`"GwPriority":2147483647`, 2147483647, 2147483647},
		{`"gwPriority":5,"args":{"cni":{"gwPriority":-2147483648}}`, 5, -2147483648},
		{`"gwPriority":5,"args":{"cni":{"gwPriority":6}},"runtimeConfig":{"gwPriority":0}`, 5, 0},
		{`"gwPriority":null,"args":{"cni":{"gwPriority":null}}`, 0, 0},
	} {
		c, err := parse(call(tt.keys))
		if err != nil || c.Config.GatewayPriority != tt.network || c.Priority != tt.container {
			t.Errorf("%s: got %+v, %v", tt.keys, c, err)
		}
	}
}

// The keys of outside reachability set these choices, and others follow from them.
func TestParseGateway(t *testing.T) {
	nat := model.NetworkConfig{Bridge: "cni0", Gateway: true, DefaultGateway: true, GatewayModeIPv4: "nat", GatewayModeIPv6: "nat"}
	with := func(change func(*model.NetworkConfig)) model.NetworkConfig {
		n := nat
		change(&n)
		return n
	}
	tests := []struct {
		keys string
		want model.NetworkConfig
	}{
		{`"gatewayMode":"nat"`, nat},
		{`"GatewayMode":"nat","ipMasq":true`, with(func(n *model.NetworkConfig) { n.Masquerade = true })},
		{`"gatewayMode":"nat","ipMasq":false`, with(func(n *model.NetworkConfig) { n.NoMasquerade = true })},
		{`"gatewayMode":"nat","isGateway":false`, with(func(n *model.NetworkConfig) { n.Gateway, n.DefaultGateway = false, false })},
		{`"gatewayMode":"nat","isGateway":true`, with(func(n *model.NetworkConfig) { n.DefaultGateway = false })},
		{`"gatewayMode":"nat","isDefaultGateway":false`, with(func(n *model.NetworkConfig) { n.Gateway, n.DefaultGateway = false, false })},
		{`"gatewayMode":{"ipv4":"nat-unprotected","IPv6":"routed"}`, with(func(n *model.NetworkConfig) {
			n.GatewayModeIPv4, n.GatewayModeIPv6 = model.GatewayNATUnprotected, model.GatewayRouted
		})},
		{`"gatewayMode":{"ipv6":"routed"}`, with(func(n *model.NetworkConfig) {
			n.GatewayModeIPv4, n.GatewayModeIPv6 = model.GatewayOpen, model.GatewayRouted
		})},
		{`"gatewayMode":"isolated"`, model.NetworkConfig{Bridge: "cni0", GatewayModeIPv4: "isolated", GatewayModeIPv6: "isolated"}},
		{`"gatewayMode":null,"backend":""`, model.NetworkConfig{Bridge: "cni0"}},
		{`"gatewayMode":"nat","snatIPv4":"192.0.2.1","snatIPv6":"2001:db8::1","trustedInterfaces":["wg0"]`, with(func(n *model.NetworkConfig) {
			n.SNATIPv4, n.SNATIPv6, n.TrustedInterfaces = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), []string{"wg0"}
		})},
		{`"ingressPolicy":"same-bridge","backend":"iptables"`, model.NetworkConfig{Bridge: "cni0", IngressPolicy: model.IngressSameBridge, Backend: model.BackendIPTables}},
		{`"ipMasqBackend":"nftables"`, model.NetworkConfig{Bridge: "cni0", Backend: model.BackendNFTables}},
		{`"backend":"nftables","ipMasqBackend":"nftables"`, model.NetworkConfig{Bridge: "cni0", Backend: model.BackendNFTables}},
	}
	for mark, want := range map[string]model.FwMark{
		`"0x1"`: {Value: 1, Mask: 0xffffffff}, `"0x10/0xf0"`: {Value: 16, Mask: 240}, `"7"`: {Value: 7, Mask: 0xffffffff}, `9`: {Value: 9, Mask: 0xffffffff}, `""`: {},
	} {
		tests = append(tests, struct {
			keys string
			want model.NetworkConfig
		}{`"acceptFwMark":` + mark, model.NetworkConfig{Bridge: "cni0", AcceptFwMark: want}})
	}
	for _, tt := range tests {
		t.Run(tt.keys, func(t *testing.T) {
			c, err := parse(call(tt.keys))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Config.Validate(); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(tt.want, c.Config, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParsePorts(t *testing.T) {
	c, err := parse(call(`"runtimeConfig":{"portMappings":[{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []model.PortMapping{{Protocol: "tcp", HostPort: 8080, ContainerPort: 80}}
	if diff := cmp.Diff(want, Ports(c.Ports), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
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
		if want := fmt.Sprintf("02:00:00:00:00:0%d", i+1); got.MAC.String() != want {
			t.Errorf("with %v: %s, want %s", keys[i:], got.MAC, want)
		}
	}
}

func TestDNSReplacesTheIPAMs(t *testing.T) {
	for keys, want := range map[string]bool{``: false, `"dns":{}`: false, `"dns":{"search":[]}`: true, `"dns":{"domain":"x"}`: true} {
		c, err := parse(call(keys))
		if err != nil || (c.DNS != nil) != want {
			t.Errorf("%s: replaces %v (%v), want %v", keys, c.DNS != nil, err, want)
		}
	}
}

// Every wrong value is named with its key.
func TestParseRefuses(t *testing.T) {
	for keys, says := range map[string]string{
		`"mtu":"big"`:                `mtu: "big"`,
		`"mtu":1.5`:                  `mtu: 1.5`,
		`"vlan":"x"`:                 `vlan: "x"`,
		`"isGateway":"yes"`:          `isGateway: "yes"`,
		`"bridge":7`:                 `bridge: 7`,
		`"vlanTrunk":[{"minID":5}]`:  `vlanTrunk[0]`,
		`"vlanTrunk":[{"id":4095}]`:  `4095`,
		`"vlanTrunk":{}`:             `vlanTrunk: {}: want a list`,
		`"ipMasqBackend":"ebtables"`: `ipMasqBackend: "ebtables"`,
		`"ipMasqBackend":"nftables","backend":"iptables"`: `ipMasqBackend: "nftables": want "iptables" as backend is`,
		`"backend":"nft"`:                                                       `backend: "nft"`,
		`"gatewayMode":"natted"`:                                                `gatewayMode: "natted": want "nat" or "nat-unprotected" or "routed" or "isolated"`,
		`"gatewayMode":true`:                                                    `gatewayMode: true`,
		`"gatewayMode":{"v4":"nat"}`:                                            `gatewayMode: {"v4":"nat"}`,
		`"gatewayMode":{"ipv4":"open"}`:                                         `gatewayMode.ipv4: "open"`,
		`"gatewayMode":{"ipv4":"nat","ipv6":"isolated"}`:                        `gatewayMode: "nat"`,
		`"gatewayMode":"routed","ipMasq":true`:                                  `ipMasq: true`,
		`"gatewayMode":"isolated","isGateway":true`:                             `gatewayMode: "isolated"`,
		`"gatewayMode":"isolated","ipMasq":true`:                                `ipMasq: true`,
		`"snatIPv4":"192.0.2.1"`:                                                `snatIPv4: 192.0.2.1: needs`,
		`"gatewayMode":"nat","snatIPv4":"2001:db8::1"`:                          `snatIPv4: 2001:db8::1`,
		`"gatewayMode":{"ipv4":"nat","ipv6":"routed"},"snatIPv6":"2001:db8::1"`: `snatIPv6: 2001:db8::1`,
		`"snatIPv6":"host"`:                                                     `snatIPv6: "host"`,
		`"trustedInterfaces":"eth0"`:                                            `trustedInterfaces: "eth0": want a list`,
		`"trustedInterfaces":["a/b"]`:                                           `trustedInterfaces: "a/b"`,
		`"acceptFwMark":"0x1ffffffff"`:                                          `acceptFwMark: "0x1ffffffff"`,
		`"acceptFwMark":"1/"`:                                                   `acceptFwMark: "1/"`,
		`"acceptFwMark":-1`:                                                     `acceptFwMark: -1`,
		`"acceptFwMark":{}`:                                                     `acceptFwMark: {}`,
		`"acceptFwMark":"0x10/0x1"`:                                             `acceptFwMark: 0x10/0x1`,
		`"ingressPolicy":"closed"`:                                              `ingressPolicy: "closed"`,
		`"runtimeConfig":{"portMappings":[{"hostPort":"x"}]}`:                   `runtimeConfig.portMappings[0].hostPort: "x"`,
		`"gwPriority":"high"`:                                                   `gwPriority: "high": want a whole number`,
		`"gwPriority":1.5`:                                                      `gwPriority: 1.5`,
		`"gwPriority":2147483648`:                                               `gwPriority: 2147483648: want a whole number from -2147483648 to 2147483647`,
		`"args":{"cni":{"gwPriority":-2147483649}}`:                             `args.cni.gwPriority: -2147483649`,
		`"runtimeConfig":{"gwPriority":[]}`:                                     `runtimeConfig.gwPriority: []`,
		`"runtimeConfig":{"mac":"x"}`:                                           `runtimeConfig.mac: "x"`,
		`"args":{"cni":{"mac":"01:00:5e:00:00:01"}}`:                            `args.cni.mac: "01:00:5e:00:00:01"`,
		`"runtimeConfig":{"mac":"00:00:00:00:00:00"}`:                           `runtimeConfig.mac`,
		`"bridge":"all"`:                                                        `bridge: "all"`,
		`"bridge":"twelve-bytes","vlan":100,"isGateway":true`:                   `vlan: 100: the gateway's interface would be "twelve-bytes.100": want a bridge of at most 11 bytes, and bridge is "twelve-bytes"`,
		`"isGateway":true,"ipam":{"type":"ipam-ln","subnet":"10.1.0.0/24","gateway":"10.2.0.1"}`: `ipam.gateway: "10.2.0.1"`,
		`"ipam":{"type":"ipam-ln","ranges":[[{"subnet":"127.1.0.0/24"}]]}`:                       `ipam.ranges[0][0].subnet: "127.1.0.0/24"`,
		`"ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.1.0.0/24","gateway":"10.1.0.255"}]]}`: `ipam.ranges[0][0].gateway: "10.1.0.255"`,
		`"ipam":{"type":"ipam-ln"}`:                                    `ipam.ranges: missing`,
		`"ipam":{"type":"ipam-ln","ranges":[[{"subnet":5}]]}`:          `subnet: 5`,
		`"ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.1.0.0"}]]}`: `ipam.ranges[0][0].subnet: "10.1.0.0"`,
	} {
		c, err := parse(call(keys))
		if err == nil {
			err = c.Config.Validate() // what cannot be together, libnet says
		}
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v, want one with %q", keys, err, says)
		}
	}
}

// DEL reads what it can of a configuration that ADD would refuse.
func TestLoose(t *testing.T) {
	c, err := loose(call(`"bridge":"br1","stateDir":"/x","mtu":"big","vlan":{},"ipam":{"type":"ipam-ln","ranges":7}`))
	if err != nil || c.Config.Bridge != "br1" || c.StateDir != "/x" || c.ipam == nil {
		t.Errorf("%+v, %v", c, err)
	}
	for _, name := range []string{"all", "a/b", "sixteen-bytes-xx"} { // edited after ADD
		if c, err := loose(call(`"bridge":"` + name + `"`)); err != nil || c.Config.Validate() != nil {
			t.Errorf("bridge %s: %v, %v", name, err, c.Config.Validate())
		}
	}
	c, err = loose(call(`"bridge":5,"stateDir":[],"ipam":"none"`))
	if err != nil || c.Config.Bridge != "cni0" || c.StateDir != "" || c.ipam != nil {
		t.Errorf("%+v, %v", c, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"name":"n","nodes":["192.0.2.1",{"address":"::1","subnet":["10.0.0.0/24"]}],"subnet":"10.0.0.0/8","blockSize":{"ipv4":30}}`)
	f.Add(`{"cniVersion":"1.1.0","name":"n","mtu":"auto","vlanTrunk":[{"id":5}],"ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.1.0.0/24"}]]}}`)
	f.Add(`{"name":"n","icc":false,"runtimeConfig":{"mac":"02:00:00:00:00:01"},"dns":{"search":["x"]}}`)
	f.Fuzz(func(t *testing.T, stdin string) {
		c := callOf(stdin)
		if c == nil {
			return
		}
		_, _ = parse(c)
		_, _ = overlay.parse(c)
		if _, err := loose(c); err != nil {
			t.Errorf("loose: %v", err)
		}
	})
}
