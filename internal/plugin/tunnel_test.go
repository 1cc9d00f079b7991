package plugin

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
)

func TestParseTunnel(t *testing.T) {
	prefix := netip.MustParsePrefix
	self := netip.MustParseAddr("127.0.0.1") // of any host
	other := netip.MustParseAddr("192.0.2.2")
	nodes := []model.Node{{Address: self, Subnets: []netip.Prefix{prefix("10.5.0.0/24")}}, {Address: other, Subnets: []netip.Prefix{prefix("10.5.1.0/24")}}}
	subnet := []netip.Prefix{prefix("10.5.0.0/16")}
	tests := []struct {
		keys string
		want model.NetworkConfig
	}{
		{`"nodes":["127.0.0.1","192.0.2.2"],"subnet":"10.5.0.0/16"`, model.NetworkConfig{
			Gateway: false, DefaultGateway: true, AutoMTU: true, GatewayModeIPv4: model.GatewayNAT, GatewayModeIPv6: model.GatewayNAT,
			Tunnel: model.TunnelConfig{Nodes: nodes, Self: self, Subnets: subnet}}},
		{`"NODES":["127.0.0.1",{"address":"192.0.2.2","subnet":"10.5.1.0/24"}],"subnet":["10.5.0.0/16"],"internal":true,"mtu":1400,"isolated":true,"vni":7,"port":8472,"device":"eth1"`, model.NetworkConfig{
			Internal: true, MTU: 1400, NoHost: true,
			Tunnel: model.TunnelConfig{Nodes: nodes, Self: self, Subnets: subnet, VNI: 7, Port: 8472, Device: "eth1"}}},
	}
	for _, tt := range tests {
		t.Run(tt.keys, func(t *testing.T) {
			lntest.Isolate(t) // whatever addresses the machine has
			c, err := overlay.parse(call(tt.keys))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, c.Config, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if c.ipam == nil || c.ipam.Type() != address.PoolType {
				t.Errorf("ipam is %v, want the host's block", c.ipam)
			}
		})
	}
}

func TestParseTunnelRefuses(t *testing.T) {
	lntest.Isolate(t)
	two := `"nodes":[{"address":"127.0.0.1","subnet":["10.5.0.0/24","10.6.0.0/24"]}]`
	const good = `"nodes":["127.0.0.1","192.0.2.2"],"subnet":"10.5.0.0/16",`
	for keys, says := range map[string]string{
		``:             `network "net1" has no block on this host: /run/libnet/overlay/net1.json is missing`,
		`"nodes":[]`:   `nodes: []: want a list`,
		`"nodes":"a"`:  `nodes: "a": want a list`,
		`"nodes":[5]`:  `nodes[0]: 5`,
		`"nodes":[{}]`: `nodes[0].address`,
		`"nodes":["192.0.2.1"],"subnet":"10.5.0.0/16"`: `none is an address of this host`,
		two:                                     `nodes[0].subnet: [10.5.0.0/24 10.6.0.0/24]: want one prefix per`,
		`"nodes":["127.0.0.1"]`:                 `subnet: missing`,
		good + `"blockSize":{"ipv6":127}`:       `blockSize.ipv6: 127`,
		good + `"blockSize":5`:                  `blockSize: 5`,
		good + `"vni":"x"`:                      `vni: "x"`,
		good + `"isolated":1`:                   `isolated: 1`,
		good + `"ipam":{"type":"dhcp"}`:         `ipam.type: "dhcp"`,
		good + `"ipam":{"subnet":"10.0.0.0/8"}`: `ipam.subnet`,
		good + `"runtimeConfig":{"ipRanges":[[{"subnet":"10.0.0.0/8"}]]}`: `runtimeConfig.ipRanges`,
	} {
		if _, err := overlay.parse(call(keys)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v, want one with %q", keys, err, says)
		}
	}
}

// DEL and GC work with a configuration that ADD would refuse.
func TestLooseTunnel(t *testing.T) {
	c, err := overlay.loose(call(`"nodes":7,"subnet":{},"ipam":5,"stateDir":"/x"`))
	if err != nil || c.StateDir != "/x" || c.ipam == nil || c.driver.name != "overlay" {
		t.Errorf("got %+v, %v", c, err)
	}
}
