package plan

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/model"
)

func addresses(prefixes ...string) model.Addressing {
	var a model.Addressing
	for _, p := range prefixes {
		a.Addresses = append(a.Addresses, model.Address{Prefix: netip.MustParsePrefix(p)})
	}
	return a
}

func route(dst, gw string) model.Route {
	r := model.Route{Dst: netip.MustParsePrefix(dst)}
	if gw != "" {
		r.Gateway = netip.MustParseAddr(gw)
	}
	return r
}

// words puts what complete made into the words of ip(8).
func words(a model.Addressing) []string {
	var out []string
	for _, addr := range a.Addresses {
		out = append(out, fmt.Sprintf("addr %s gw %s", addr.Prefix, addr.Gateway))
	}
	for _, r := range a.Routes {
		out = append(out, fmt.Sprintf("route %s via %s", r.Dst, r.Gateway))
	}
	return out
}

func TestComplete(t *testing.T) {
	withRoutes := func(a model.Addressing, r ...model.Route) model.Addressing { a.Routes = r; return a }
	withGateway := func(a model.Addressing, gw string) model.Addressing {
		a.Addresses[0].Gateway = netip.MustParseAddr(gw)
		return a
	}
	tests := []struct {
		name string
		conf model.NetworkConfig
		in   model.Addressing
		want []string
	}{
		{"no gateway asked for", model.NetworkConfig{}, addresses("10.1.0.5/24"),
			[]string{"addr 10.1.0.5/24 gw invalid IP"}},
		{"gateway is the subnet's first address", model.NetworkConfig{Gateway: true}, addresses("10.1.0.5/24", "fd01::5/64"),
			[]string{"addr 10.1.0.5/24 gw 10.1.0.1", "addr fd01::5/64 gw fd01::1"}},
		{"the IPAM's gateway wins", model.NetworkConfig{Gateway: true}, withGateway(addresses("10.1.0.5/24"), "10.1.0.254"),
			[]string{"addr 10.1.0.5/24 gw 10.1.0.254"}},
		{"a route without gateway takes its family's", model.NetworkConfig{Gateway: true},
			withRoutes(addresses("10.1.0.5/24", "fd01::5/64"), route("0.0.0.0/0", ""), route("fd02::/64", "")),
			[]string{"addr 10.1.0.5/24 gw 10.1.0.1", "addr fd01::5/64 gw fd01::1",
				"route 0.0.0.0/0 via 10.1.0.1", "route fd02::/64 via fd01::1"}},
		{"default routes of both families", model.NetworkConfig{DefaultGateway: true}, addresses("10.1.0.5/24", "fd01::5/64"),
			[]string{"addr 10.1.0.5/24 gw 10.1.0.1", "addr fd01::5/64 gw fd01::1",
				"route 0.0.0.0/0 via 10.1.0.1", "route ::/0 via fd01::1"}},
		{"the IPAM's default route with a gateway wins", model.NetworkConfig{DefaultGateway: true},
			withRoutes(addresses("10.1.0.5/24"), route("0.0.0.0/0", "10.1.0.9")),
			[]string{"addr 10.1.0.5/24 gw 10.1.0.1", "route 0.0.0.0/0 via 10.1.0.9"}},
		{"the IPAM's default route without one is not doubled", model.NetworkConfig{DefaultGateway: true},
			withRoutes(addresses("10.1.0.5/24"), route("0.0.0.0/0", "")),
			[]string{"addr 10.1.0.5/24 gw 10.1.0.1", "route 0.0.0.0/0 via 10.1.0.1"}},
		{"a single address has no gateway", model.NetworkConfig{Gateway: true}, addresses("10.1.0.5/32"),
			[]string{"addr 10.1.0.5/32 gw invalid IP"}},
		{"nor have two", model.NetworkConfig{Gateway: true}, addresses("10.1.0.5/31", "fd01::4/127"),
			[]string{"addr 10.1.0.5/31 gw invalid IP", "addr fd01::4/127 gw invalid IP"}},
		{"of two, one that is named", model.NetworkConfig{DefaultGateway: true}, withGateway(addresses("10.1.0.5/31"), "10.1.0.4"),
			[]string{"addr 10.1.0.5/31 gw 10.1.0.4", "route 0.0.0.0/0 via 10.1.0.4"}},
		{"the IPAM's default route serves without a gateway", model.NetworkConfig{DefaultGateway: true},
			withRoutes(addresses("10.1.0.5/32"), route("0.0.0.0/0", "")),
			[]string{"addr 10.1.0.5/32 gw invalid IP", "route 0.0.0.0/0 via invalid IP"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.in.Complete(tt.conf)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, words(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A default route that is asked for and cannot be made is an error, not a container without one.
func TestCompleteRefusesSubnetsWithoutGateway(t *testing.T) {
	for _, in := range [][]string{{"10.1.0.5/31"}, {"fd01::4/127"}, {"10.1.0.5/32"}, {"10.1.0.5/24", "fd01::4/127"}} {
		_, err := addresses(in...).Complete(model.NetworkConfig{DefaultGateway: true})
		var bad *model.ConfigError
		if !errors.As(err, &bad) || bad.Key != "ipam.gateway" {
			t.Errorf("%v: %v, want a ConfigError of ipam.gateway", in, err)
		}
	}
}

func TestCompleteRefusesTheGatewaysOwnAddress(t *testing.T) {
	_, err := addresses("10.1.0.1/24").Complete(model.NetworkConfig{Gateway: true})
	var conf *model.ConfigError
	if !errors.As(err, &conf) || conf.Value != "10.1.0.1" {
		t.Errorf("error %v, want a ConfigError that names 10.1.0.1", err)
	}
}

func TestIPv6Mode(t *testing.T) {
	tests := []struct {
		in   model.Addressing
		want host.IPv6Mode
	}{
		{addresses("10.1.0.5/24"), host.IPv6Off},
		{addresses("10.1.0.5/24", "fd01::5/64"), host.IPv6On},
		{addresses("fd01::5/64"), host.IPv6On},
		{addresses(), host.IPv6Keep},
	}
	for _, tt := range tests {
		if got := (&Network{}).Bridge(tt.in).IPv6; got != tt.want {
			t.Errorf("%v: mode %v, want %v", words(tt.in), got, tt.want)
		}
	}
}

func TestValidate(t *testing.T) {
	tests := []struct {
		conf model.NetworkConfig
		key  string // of the error; empty: none
	}{
		{model.NetworkConfig{}, ""},
		{model.NetworkConfig{MTU: 67}, "mtu"},
		{model.NetworkConfig{MTU: 65536}, "mtu"},
		{model.NetworkConfig{MTU: 68}, ""},
		{model.NetworkConfig{VLAN: 4095}, "vlan"},
		{model.NetworkConfig{VLAN: -1}, "vlan"},
		{model.NetworkConfig{VLANTrunk: []model.VLANRange{{Min: 5, Max: 4}}}, "vlanTrunk"},
		{model.NetworkConfig{VLANTrunk: []model.VLANRange{{Min: 1, Max: 4094}}}, ""},
		{model.NetworkConfig{GatewayPriority: math.MaxInt32}, ""},
		{model.NetworkConfig{GatewayPriority: math.MaxInt32 + 1}, "gwPriority"},
		{model.NetworkConfig{GatewayPriority: math.MinInt32 - 1}, "gwPriority"},
		{model.NetworkConfig{Bridge: "a/b"}, "bridge"},
		{model.NetworkConfig{Bridge: "sixteen-bytes-xx"}, "bridge"},
		{model.NetworkConfig{Bridge: "all"}, "bridge"},
		{model.NetworkConfig{Bridge: "default"}, "bridge"},
		{model.NetworkConfig{Bridge: "lo"}, "bridge"},
		{model.NetworkConfig{Bridge: "br%d"}, "bridge"},
		{model.NetworkConfig{Bridge: "twelve-bytes", VLAN: 100, Gateway: true}, "vlan"},
		{model.NetworkConfig{Bridge: "twelve-bytes", VLAN: 10, Gateway: true}, ""},
		{model.NetworkConfig{Bridge: "fifteen-bytes-x", VLAN: 10}, ""}, // without a gateway there is no such interface
		{model.NetworkConfig{Hairpin: true, Promiscuous: true}, "hairpinMode"},
		{model.NetworkConfig{Internal: true, Masquerade: true}, "internal"},
		{model.NetworkConfig{Internal: true, DefaultGateway: true}, "internal"},
		{direct(func(*model.NetworkConfig) {}), ""},
		{direct(func(c *model.NetworkConfig) { c.Tunnel.Agent = false }), "directRouting"},
		{direct(func(c *model.NetworkConfig) { c.Tunnel.Encryption = model.WireGuard }), "directRouting"},
		{direct(func(c *model.NetworkConfig) { c.NoHost = true }), "directRouting"},
		{direct(func(c *model.NetworkConfig) { c.NoICC = true }), "directRouting"},
	}
	for _, tt := range tests {
		err := tt.conf.Validate()
		var conf *model.ConfigError
		switch {
		case tt.key == "" && err != nil:
			t.Errorf("%+v: %v", tt.conf, err)
		case tt.key != "" && (!errors.As(err, &conf) || conf.Key != tt.key):
			t.Errorf("%+v: error %v, want one for key %s", tt.conf, err, tt.key)
		}
	}
}

// direct is a network whose hosts may reach each other without a tunnel, changed.
func direct(change func(*model.NetworkConfig)) model.NetworkConfig {
	self := netip.MustParseAddr("192.0.2.1")
	c := model.NetworkConfig{Tunnel: model.TunnelConfig{
		Agent: true, DirectRouting: true, Self: self, Nodes: []model.Node{{Address: self, Subnets: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/24")}}},
	}}
	change(&c)
	return c
}

func TestValidateSubnet(t *testing.T) {
	gateway, plain := model.NetworkConfig{Gateway: true}, model.NetworkConfig{}
	for _, tt := range []struct {
		conf            model.NetworkConfig
		subnet, gateway string
		key             string // of the error; empty: none
	}{
		{gateway, "10.1.0.0/24", "10.1.0.1", ""},
		{gateway, "10.1.0.0/24", "", ""},
		{gateway, "10.1.0.0/24", "10.2.0.1", "k.gateway"},
		{plain, "10.1.0.0/24", "10.2.0.1", ""}, // a router of the container's own making
		{plain, "10.1.0.0/24", "10.1.0.255", "k.gateway"},
		{plain, "10.1.0.0/24", "10.1.0.0", "k.gateway"},
		{gateway, "10.1.0.0/31", "10.1.0.0", ""},
		{gateway, "10.1.0.4/31", "10.1.0.5", ""},
		{gateway, "10.1.0.0/24", "169.254.1.1", "k.gateway"},
		{gateway, "fd00::/64", "fe80::1", ""},
		{gateway, "fd00::/64", "fd00::1", ""},
		{gateway, "fd00::/64", "fd01::1", "k.gateway"},
		{plain, "fd00::/64", "ff02::1", "k.gateway"},
		{plain, "127.5.0.0/16", "", "k.subnet"},
		{plain, "0.0.0.0/8", "", "k.subnet"},
		{plain, "0.0.0.0/0", "", "k.subnet"},
		{plain, "239.1.0.0/16", "", "k.subnet"},
		{plain, "::1/128", "", "k.subnet"},
		{plain, "fe80::/64", "", "k.subnet"},
		{plain, "ff05::/64", "", "k.subnet"},
		{plain, "169.254.7.0/24", "", ""},
	} {
		var gw netip.Addr
		if tt.gateway != "" {
			gw = netip.MustParseAddr(tt.gateway)
		}
		err := tt.conf.ValidateSubnet("k", netip.MustParsePrefix(tt.subnet), gw)
		var conf *model.ConfigError
		switch {
		case tt.key == "" && err != nil:
			t.Errorf("%s %s: %v", tt.subnet, tt.gateway, err)
		case tt.key != "" && (!errors.As(err, &conf) || conf.Key != tt.key):
			t.Errorf("%s %s: error %v, want one for key %s", tt.subnet, tt.gateway, err, tt.key)
		}
	}
}

func TestIPv6NeedsItsMTU(t *testing.T) {
	n := &Network{Name: "net1", Config: model.NetworkConfig{Bridge: "br1", MTU: 1200}}
	if _, err := n.Endpoint(model.ID{Network: "net1", ContainerID: "c1", IfName: "eth0"}, addresses("fd01::5/64"), nil, nil); err == nil {
		t.Error("MTU 1200 with IPv6 was accepted")
	}
	if _, err := n.Endpoint(model.ID{Network: "net1", ContainerID: "c1", IfName: "eth0"}, addresses("10.1.0.5/24"), nil, nil); err != nil {
		t.Errorf("MTU 1200 with IPv4: %v", err)
	}
}

func TestIDNames(t *testing.T) {
	id := model.ID{Network: "net1", ContainerID: "c1", IfName: "eth0"}
	if got, ok := model.ParseOwner(id.String()); !ok || got != id {
		t.Errorf("parseOwner(%q) = %v, %v", id, got, ok)
	}
	for _, owner := range []string{"libnet:net1/", "", "net1/c1/eth0", "libnet:a/b/c/d"} {
		if got, ok := model.ParseOwner(owner); ok {
			t.Errorf("parseOwner(%q) = %v, want none", owner, got)
		}
	}
	names := map[string]model.ID{}
	for _, id := range []model.ID{id, {Network: "net1", ContainerID: "c1", IfName: "eth1"}, {Network: "net2", ContainerID: "c1", IfName: "eth0"}, {Network: "net1", ContainerID: "c2", IfName: "eth0"}} {
		name := id.HostName()
		if len(name) != 15 {
			t.Errorf("host name %q has %d bytes, want 15", name, len(name))
		}
		if other, taken := names[name]; taken {
			t.Errorf("%v and %v share the host name %s", id, other, name)
		}
		names[name] = id
	}
}

func TestIDValidate(t *testing.T) {
	long := strings.Repeat("x", 200)
	for _, id := range []model.ID{
		{Network: "", ContainerID: "c1", IfName: "eth0"}, {Network: "net1", ContainerID: "", IfName: "eth0"}, {Network: "net1", ContainerID: "c1", IfName: ""},
		{Network: "..", ContainerID: "c1", IfName: "eth0"}, {Network: "net1", ContainerID: "../c1", IfName: "eth0"}, {Network: "net1", ContainerID: "c1", IfName: ".."},
		{Network: "net1", ContainerID: "c1", IfName: "a/b"}, {Network: "net1", ContainerID: "c1", IfName: "a:b"}, {Network: "net1", ContainerID: "c1", IfName: "a b"}, {Network: "net1", ContainerID: "c1", IfName: "sixteen-bytes-xx"},
		{Network: "net/1", ContainerID: "c1", IfName: "eth0"}, {Network: "-net", ContainerID: "c1", IfName: "eth0"}, {Network: long, ContainerID: long, IfName: "eth0"}, {Network: "net1", ContainerID: long + "x", IfName: "eth0"},
	} {
		if err := id.Validate(); !errors.Is(err, model.ErrInvalidName) {
			t.Errorf("%.30v: error %v, want ErrInvalidName", id, err)
		}
	}
	for _, id := range []model.ID{{Network: "net1", ContainerID: "c1", IfName: "eth0"}, {Network: "n", ContainerID: "A.b_c-1", IfName: "eth0.5"}, {Network: "net1", ContainerID: long, IfName: "e"}} {
		if err := id.Validate(); err != nil {
			t.Errorf("%.30v: %v", id, err)
		}
	}
}
