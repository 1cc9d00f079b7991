package engine

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/libnet-cni/libnet/internal/model"
)

// The bridge takes packets for 127.0.0.0/8 only as long as a container on it has a
// port that they lead to: one whose network is routed has none, nor has one without
// hairpin, and a publication without hairpin has none.
func TestRouteLocalnetByMode(t *testing.T) {
	t.Parallel()
	routed := model.NetworkConfig{Gateway: true, GatewayModeIPv4: model.GatewayRouted}
	for name, tt := range map[string]struct {
		stays     model.NetworkConfig
		localhost bool
	}{
		"routed":      {routed, false},
		"no hairpin":  {model.NetworkConfig{Gateway: true, NoHairpin: true}, false},
		"nat":         {model.NetworkConfig{Gateway: true, GatewayModeIPv4: model.GatewayNAT}, true},
		"no policies": {model.NetworkConfig{Gateway: true}, true},
	} {
		for _, edited := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, edited %t", name, edited), func(t *testing.T) {
				t.Parallel()
				h := newHost(t)
				ctx := context.Background()
				define := func(name, subnet string, cfg model.NetworkConfig) *Network {
					t.Helper()
					cfg.Bridge = "brl"
					n, err := h.NewNetwork(ctx, "bridge", name, WithConfig(cfg), WithSubnet(netip.MustParsePrefix(subnet)))
					must(t, err)
					return n
				}
				goes := define("goes", "10.48.0.0/24", model.NetworkConfig{Gateway: true, GatewayModeIPv4: model.GatewayNAT})
				stays := define("stays", "10.49.0.0/24", tt.stays)
				first := h.attach(goes, "c1", WithPorts(model.PortMapping{HostPort: 8081, ContainerPort: 80}))
				second := h.attach(stays, "c2", WithPorts(model.PortMapping{HostPort: 8082, ContainerPort: 80}))
				if edited { // its record tells of another mode than c2 came with
					cfg := routed
					if tt.stays.GatewayModeIPv4 == model.GatewayRouted {
						cfg = model.NetworkConfig{Gateway: true, GatewayModeIPv4: model.GatewayNAT}
					}
					must(t, h.edited(stays, cfg).saveRecord())
				}
				want := func(when string, on bool) {
					t.Helper()
					got, err := os.ReadFile("/proc/sys/net/ipv4/conf/brl/route_localnet")
					if err != nil || (string(got) == "1\n") != on {
						t.Errorf("%s: route_localnet is %q, %v, want on: %t", when, got, err, on)
					}
				}
				want("two ports", true)
				must(t, goes.Remove(ctx, first.ID()))
				want("one port", tt.localhost)
				must(t, stays.Remove(ctx, second.ID()))
				want("no port", false)
			})
		}
	}
}

// edited is the network with another configuration, on the same bridge.
func (h *realHost) edited(n *Network, cfg model.NetworkConfig) *Network {
	h.t.Helper()
	cfg.Bridge = n.def.Config.Bridge
	changed, err := h.DefineNetwork("bridge", n.def.Name, WithConfig(cfg), WithIPAM(n.ipam))
	must(h.t, err)
	return changed
}

// Ports of a network without IPAM would lead nowhere: they are refused, and nothing
// is left of the try.
func TestPortsNeedAddresses(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx := context.Background()
	n, err := h.NewNetwork(ctx, "bridge", "net1", WithConfig(model.NetworkConfig{Bridge: "brl"}))
	must(t, err)
	_, err = n.Attach(ctx, h.sandbox("c1"), WithPorts(model.PortMapping{HostPort: 8080, ContainerPort: 80}))
	const want = "portMappings[0]: tcp *:8080 to 80: cannot be published, as the container gets no address without ipam: " +
		"give the network an ipam section, or publish no port (take portMappings out of capabilities)"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if recs, err := h.endpoints.Endpoints("net1"); len(recs) > 0 || err != nil {
		t.Errorf("left: %v, %v", recs, err)
	}
	h.attach(n, "c2")
}
