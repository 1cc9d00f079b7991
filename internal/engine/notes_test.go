package engine

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/model"
)

// A plugin that brings another configuration knows nothing of labels, nor of who
// made the network.
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
	if now.config.MTU != 1300 || !now.kept {
		t.Errorf("MTU %d, kept %v", now.config.MTU, now.kept)
	}
	if diff := cmp.Diff(labels, now.Labels()) + cmp.Diff(options, now.DriverOptions()); diff != "" {
		t.Error(diff)
	}
}

// An interface under the next free name is found again by the kernel alone.
func TestRebuildOfTheNextName(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	n := h.network("10.1.0.0/24", WithMasquerade()) // its rules tell that it is open
	sb := h.sandbox("c1")
	for _, name := range []string{"one", "two"} {
		e, err := n.CreateEndpoint(ctx, name, WithNextIfName())
		if err == nil {
			err = e.Join(ctx, sb)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	h.lose("state")
	if ids, err := h.Rebuild(ctx); len(ids) != 2 || err != nil {
		t.Fatalf("rebuilt %v: %v", ids, err)
	}
	found, err := h.Network("net1")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	err = found.WalkEndpoints(ctx, func(e *Endpoint) bool {
		names = append(names, e.Name()+" "+e.IfName())
		if err := e.Verify(ctx); err != nil {
			t.Errorf("%s: %v", e.Name(), err)
		}
		if err := found.Remove(ctx, e.ID()); err != nil {
			t.Errorf("%s: %v", e.Name(), err)
		}
		return true
	})
	slices.Sort(names)
	if diff := cmp.Diff([]string{"one eth0", "two eth1"}, names); diff != "" || err != nil {
		t.Error(diff, err)
	}
}
