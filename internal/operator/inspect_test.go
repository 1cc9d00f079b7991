package operator

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
)

func TestLife(t *testing.T) {
	c := newHost(t)
	path := lntest.NewNetns(t)
	id, err := life.NetnsIDOf(path)
	if err != nil {
		t.Fatal(err)
	}
	other := state.NetnsID(id)
	other.Cookie++
	for name, tt := range map[string]struct {
		rec  state.Endpoint
		want Life
		why  string
	}{
		"alive":           {state.Endpoint{Phase: state.PhaseReady, Boot: c.boot, Netns: path, NetnsID: state.NetnsID(id)}, Alive, ""},
		"unknown":         {state.Endpoint{Phase: state.PhaseReady, Netns: "/none"}, Alive, ""},
		"at work":         {state.Endpoint{Phase: state.PhaseLeased, Boot: c.boot, Netns: path, NetnsID: state.NetnsID(id)}, Unfinished, ""},
		"not joined":      {state.Endpoint{Phase: state.PhaseLeased, Boot: c.boot}, NotJoined, ""},
		"gone":            {state.Endpoint{Phase: state.PhaseReady, Boot: c.boot, Netns: "/none", NetnsID: state.NetnsID(id), MountNS: life.MountNS()}, Dead, "its network namespace /none is gone"},
		"another's":       {state.Endpoint{Phase: state.PhaseReady, Boot: c.boot, Netns: path, NetnsID: other, MountNS: life.MountNS()}, Dead, "another network namespace is at " + path},
		"from afar":       {state.Endpoint{Phase: state.PhaseReady, Boot: c.boot, Netns: "/none", NetnsID: state.NetnsID(id), MountNS: "1"}, Alive, ""},
		"from before":     {state.Endpoint{Phase: state.PhaseReady, Boot: c.boot, Netns: "/none", NetnsID: state.NetnsID(id)}, Alive, ""},
		"of earlier boot": {state.Endpoint{Phase: state.PhaseReady, Boot: "old", Netns: path, NetnsID: state.NetnsID(id)}, Dead, "made before the last reboot"},
	} {
		if got := c.attachment(tt.rec); got.Life != tt.want || got.Why != tt.why {
			t.Errorf("%s: %s, %q, want %s, %q", name, got.Life, got.Why, tt.want, tt.why)
		}
	}
}

func TestPublishedPorts(t *testing.T) {
	a := netip.MustParseAddr
	addrs := []netip.Addr{a("10.0.0.2"), a("10.0.1.2"), a("fd00::2")}
	span := model.PortMapping{Protocol: "udp", HostPort: 5000, HostPortEnd: 5002, ContainerPort: 6000}
	at := func(host string) model.PortMapping {
		return model.PortMapping{Protocol: "tcp", HostIP: a(host), HostPort: 8080, ContainerPort: 80}
	}
	for name, tt := range map[string]struct {
		port   model.PortMapping
		v4, v6 model.GatewayMode
		want   []PublishedPort
	}{
		"of both families": {span, model.GatewayNAT, model.GatewayOpen, []PublishedPort{
			{"udp", a("0.0.0.0"), 5000, 5002, a("10.0.0.2"), 6000, 6002, nil, false}, {"udp", a("::"), 5000, 5002, a("fd00::2"), 6000, 6002, nil, false},
		}},
		"of one": {at("0.0.0.0"), model.GatewayNAT, model.GatewayNAT, []PublishedPort{{"tcp", a("0.0.0.0"), 8080, 0, a("10.0.0.2"), 80, 0, nil, false}}},
		"mapped": {at("::ffff:192.0.2.1"), model.GatewayNAT, model.GatewayNAT, []PublishedPort{{"tcp", a("192.0.2.1"), 8080, 0, a("10.0.0.2"), 80, 0, nil, false}}},
		"routed": {span, model.GatewayRouted, model.GatewayNAT, []PublishedPort{
			{"udp", netip.Addr{}, 0, 0, a("10.0.0.2"), 6000, 6002, nil, false}, {"udp", a("::"), 5000, 5002, a("fd00::2"), 6000, 6002, nil, false},
		}},
	} {
		mode := model.NetworkConfig{GatewayModeIPv4: tt.v4, GatewayModeIPv6: tt.v6}.Mode
		if diff := cmp.Diff(tt.want, publishedPorts([]model.PortMapping{tt.port}, addrs, mode), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
