package netconf

import (
	"testing"

	"github.com/libnet-cni/libnet/internal/model"
)

func TestAgentNetworks(t *testing.T) {
	const list = `{"cniVersion":"1.1.0","name":"net1","plugins":[{"type":"bridge-ln"},
		{"type":"overlay-ln","nodes":["192.0.2.1"],"subnet":"10.9.0.0/16"},
		{"type":"overlay-ln","subnet":["10.5.0.0/16","fd05::/48"],"blockSize":{"ipv4":26},"vni":7,"bridge":"br7","stateDir":"/s","ipam":{"dataDir":"/d"}}]}`
	got, err := AgentNetworks([]byte(list))
	if err != nil || len(got) != 1 {
		t.Fatalf("got %+v, %v, want one", got, err)
	}
	n := got[0]
	if n.Name != "net1" || n.StateDir != "/s" || n.DataDir != "/d" || len(n.Subnets) != 2 || n.Size != (model.BlockSize{IPv4: 26, IPv6: 64}) ||
		n.Config.Bridge != "br7" || n.Config.Tunnel.VNI != 7 || !n.Config.AutoMTU || n.Config.GatewayModeIPv6 != model.GatewayNAT {
		t.Errorf("got %+v", n)
	}
	for _, bad := range []string{
		`{`, `[]`, `{"name":"net1","type":"overlay-ln"}`, `{"name":"","type":"overlay-ln","subnet":"10.5.0.0/16"}`,
		`{"name":"net1","type":"overlay-ln","subnet":["10.5.0.0/16","10.6.0.0/16"]}`, `{"name":"net1","type":"overlay-ln","subnet":"10.5.0.0/16","vni":"x"}`,
	} {
		if got, err := AgentNetworks([]byte(bad)); err == nil {
			t.Errorf("%s: %+v, want an error", bad, got)
		}
	}
}
