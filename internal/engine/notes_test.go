package engine

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/model"
)

// A plugin that brings another configuration has no labels, and does not tell that
// NewNetwork made the network.
func TestLabelsOutliveAnotherConfiguration(t *testing.T) {
	h := newHost(t)
	labels, options := map[string]string{"a": "1"}, map[string]any{"mtu": 1400.0}
	h.network("10.1.0.0/24", WithLabels(labels), WithDriverOptions(options))
	changed := model.NetworkConfig{Gateway: true, DefaultGateway: true, MTU: 1300}
	n, err := h.DefineNetwork("bridge", "net1", WithConfig(changed), WithSubnet(netip.MustParsePrefix("10.1.0.0/24")))
	if err != nil {
		t.Fatal(err)
	}
	h.attach(n, "c1")
	now, err := h.Network("net1")
	if err != nil {
		t.Fatal(err)
	}
	if now.def.Config.MTU != 1300 || !now.kept {
		t.Errorf("MTU %d, kept %v", now.def.Config.MTU, now.kept)
	}
	if diff := cmp.Diff(labels, now.Labels()) + cmp.Diff(options, now.DriverOptions()); diff != "" {
		t.Error(diff)
	}
}
