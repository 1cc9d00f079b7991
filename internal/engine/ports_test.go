package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/publish"
)

func TestValidatePorts(t *testing.T) {
	ok := model.PortMapping{HostPort: 80, ContainerPort: 80}
	for _, tt := range []struct {
		port model.PortMapping
		key  string
	}{
		{ok, ""},
		{model.PortMapping{ContainerPort: 80}, ""},
		{model.PortMapping{Protocol: "sctp", HostPort: 1, HostPortEnd: 65535, ContainerPort: 1}, ""},
		{model.PortMapping{Protocol: "icmp", HostPort: 1, ContainerPort: 1}, "protocol"},
		{model.PortMapping{HostPort: -1, ContainerPort: 1}, "hostPort"},
		{model.PortMapping{HostPort: 65536, ContainerPort: 1}, "hostPort"},
		{model.PortMapping{HostPort: 1}, "containerPort"},
		{model.PortMapping{HostPort: 1, ContainerPort: 65536}, "containerPort"},
		{model.PortMapping{HostPort: 10, HostPortEnd: 9, ContainerPort: 1}, "hostPortEnd"},
		{model.PortMapping{HostPortEnd: 9, ContainerPort: 1}, "hostPortEnd"},
		{model.PortMapping{HostPort: 10, HostPortEnd: 65536, ContainerPort: 1}, "hostPortEnd"},
		{model.PortMapping{HostPort: 10, HostPortEnd: 20, ContainerPort: 65530}, "containerPort"},
		{model.PortMapping{HostPort: 1, ContainerPort: 1, Sources: []netip.Prefix{{}}}, "sourceRanges"},
	} {
		_, err := model.ValidatePorts([]model.PortMapping{{HostPort: 5000, ContainerPort: 1}, tt.port})
		if tt.port.HostPortEnd == 65535 {
			_, err = model.ValidatePorts([]model.PortMapping{tt.port})
		}
		var conf *model.ConfigError
		if got := errors.As(err, &conf); got != (tt.key != "") || got && conf.Key != "portMappings[1]."+tt.key {
			t.Errorf("%+v: got %v, want an error for %q", tt.port, err, tt.key)
		}
	}
	if _, err := model.ValidatePorts([]model.PortMapping{ok, {HostPort: 70, HostPortEnd: 90, ContainerPort: 1}}); err != nil {
		t.Errorf("a port and a range: %v", err)
	}
	_, err := model.ValidatePorts([]model.PortMapping{{ContainerPort: 9}, ok, {HostPort: 80, ContainerPort: 81}})
	var conf *model.ConfigError
	if !errors.As(err, &conf) || conf.Key != "portMappings[2]" || !strings.Contains(conf.Want, "portMappings[1]") {
		t.Errorf("a port that leads to two: %v", err)
	}
	if _, err := model.ValidatePorts([]model.PortMapping{ok, {Protocol: "udp", HostPort: 80, ContainerPort: 80}}); err != nil {
		t.Errorf("a port once by protocol: %v", err)
	}
}

func TestValidateGateway(t *testing.T) {
	v4 := netip.MustParseAddr("192.0.2.1")
	for _, tt := range []struct {
		conf model.NetworkConfig
		key  string
	}{
		{model.NetworkConfig{GatewayModeIPv4: model.GatewayNAT, GatewayModeIPv6: model.GatewayRouted, Gateway: true, SNATIPv4: v4}, ""},
		{model.NetworkConfig{GatewayModeIPv4: "bridge"}, "gatewayMode.ipv4"},
		{model.NetworkConfig{GatewayModeIPv4: model.GatewayIsolated, GatewayModeIPv6: model.GatewayNAT}, "gatewayMode"},
		{model.NetworkConfig{GatewayModeIPv4: model.GatewayIsolated, GatewayModeIPv6: model.GatewayIsolated, Gateway: true}, "gatewayMode"},
		{model.NetworkConfig{GatewayModeIPv4: model.GatewayRouted, GatewayModeIPv6: model.GatewayRouted, Masquerade: true}, "ipMasq"},
		{model.NetworkConfig{SNATIPv4: v4}, "snatIPv4"},
		{model.NetworkConfig{SNATIPv6: v4, Masquerade: true}, "snatIPv6"},
		{model.NetworkConfig{TrustedInterfaces: []string{"a/b"}}, "trustedInterfaces"},
		{model.NetworkConfig{AcceptFwMark: model.FwMark{Value: 2, Mask: 1}}, "acceptFwMark"},
		{model.NetworkConfig{IngressPolicy: "closed"}, "ingressPolicy"},
		{model.NetworkConfig{Backend: "ebtables"}, "backend"},
	} {
		err := tt.conf.Validate()
		var conf *model.ConfigError
		if got := errors.As(err, &conf); got != (tt.key != "") || got && conf.Key != tt.key {
			t.Errorf("%+v: got %v, want an error for %q", tt.conf, err, tt.key)
		}
	}
}

func (h *realHost) nft(args ...string) string {
	h.t.Helper()
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("nft %v: %v: %s", args, err, out)
	}
	return string(out)
}

// web is a container that greets on port 80.
func (h *realHost) web(n *Network, id string, ports ...model.PortMapping) (*Endpoint, error) {
	h.t.Helper()
	sb := h.sandbox(id)
	e, err := n.Attach(context.Background(), sb, WithPorts(ports...))
	if err != nil {
		return nil, err
	}
	ns, err := life.OpenNetns(sb.Path())
	if err != nil {
		return nil, err
	}
	var l net.Listener
	err = errors.Join(ns.Do(func() (err error) { l, err = net.Listen("tcp", ":80"); return err }), ns.Close())
	if err != nil {
		return nil, err
	}
	h.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprint(c, id)
			_ = c.Close()
		}
	}()
	return e, nil
}

// greets returns the name of the server that answers at an address of the host.
func greets(addr string) string {
	c, err := lntest.Dial("tcp", addr, lntest.WaitForAnswer)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(lntest.WaitForAnswer))
	b := make([]byte, 64)
	k, err := c.Read(b)
	if err != nil {
		return err.Error()
	}
	return string(b[:k])
}

// The life of published ports: chosen, held, taken from the dead, put back, gone.
func TestPorts(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx := context.Background()
	n := h.network("10.1.0.0/24", WithConfig(model.NetworkConfig{Gateway: true, DefaultGateway: true, GatewayModeIPv4: model.GatewayNAT}))
	before := h.nft("list", "ruleset")
	a, err := h.web(n, "a", model.PortMapping{HostPort: 8080, ContainerPort: 80}, model.PortMapping{ContainerPort: 80})
	if err != nil {
		t.Fatal(err)
	}
	chosen := a.Ports()[1].HostPort
	if chosen < 1024 {
		t.Fatalf("chosen host port: %d", chosen)
	}
	for _, port := range []int{8080, chosen} {
		if got := greets(fmt.Sprintf("127.0.0.1:%d", port)); got != "a" {
			t.Errorf("port %d: %q answers, want a", port, got)
		}
	}
	_, err = h.web(n, "b", model.PortMapping{HostPort: 8080, ContainerPort: 80})
	var held *publish.PortHeldError
	if !errors.As(err, &held) || !strings.HasSuffix(held.Owner, "net1/a/eth0") || !strings.Contains(held.Error(), "8080") {
		t.Fatalf("a port twice: %v", err)
	}
	if _, err := h.web(n, "c", model.PortMapping{HostPort: 8081, ContainerPort: 80}); err != nil {
		t.Fatal(err)
	}

	h.nft("flush", "ruleset")
	if got := greets("127.0.0.1:8080"); got == "a" {
		t.Fatal("a answers though the rules are flushed")
	}
	if err := a.Verify(ctx); !errors.Is(err, model.ErrDifferent) {
		t.Errorf("verify after the flush: %v", err)
	}
	if looked, err := h.Repair(ctx); err != nil || looked != 2 {
		t.Errorf("repaired %d, %v", looked, err)
	}
	if got := greets("127.0.0.1:8080"); got != "a" {
		t.Errorf("after the repair %q answers, want a", got)
	}
	h.nft("flush", "ruleset")
	if _, err := h.web(n, "d"); err != nil { // the next ADD of the network
		t.Fatal(err)
	}
	for port, want := range map[int]string{8080: "a", 8081: "c"} {
		if got := greets(fmt.Sprintf("127.0.0.1:%d", port)); got != want {
			t.Errorf("port %d after the next Attach: %q answers, want %s", port, got, want)
		}
	}
	for _, id := range []string{"a", "b", "c", "d"} {
		if err := n.Remove(ctx, model.ID{Network: "net1", ContainerID: id, IfName: "eth0"}); err != nil {
			t.Error(err)
		}
	}
	must(t, n.Delete(ctx))
	if diff := cmp.Diff(before, h.nft("list", "ruleset")); diff != "" {
		t.Errorf("ruleset after Delete: %s", diff)
	}
}

// Ports of a container whose namespace is gone are free.
func TestPortsOfTheDead(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx := context.Background()
	n := h.network("10.1.0.0/24")
	port := model.PortMapping{HostPort: 8080, ContainerPort: 80}
	sb, err := h.NewSandbox(ctx, "dead")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Attach(ctx, sb, WithPorts(port)); err != nil {
		t.Fatal(err)
	}
	if err := sb.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := h.web(n, "next", port); err != nil {
		t.Fatal(err)
	}
	if got := greets("127.0.0.1:8080"); got != "next" {
		t.Errorf("%q answers, want next", got)
	}
}

// A Publisher in front of a container that it did not connect.
func TestPublisher(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx := context.Background()
	n := h.network("10.1.0.0/24")
	before := h.nft("list", "ruleset")
	e, err := h.web(n, "a")
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Publisher("net1", model.PublishConfig{})
	if err != nil {
		t.Fatal(err)
	}
	pub := publish.Publication{ID: e.ID(), Netns: e.Netns(), Addrs: e.Addressing().Addrs(), Ports: []model.PortMapping{{HostPort: 8080, ContainerPort: 80}, {ContainerPort: 80}}}
	first, err := p.Publish(ctx, pub)
	if err != nil {
		t.Fatal(err)
	}
	again, err := p.Publish(ctx, pub)
	if diff := cmp.Diff(fmt.Sprint(first), fmt.Sprint(again)); err != nil || diff != "" {
		t.Errorf("again: %v, %s", err, diff)
	}
	for _, m := range first {
		if got := greets(fmt.Sprintf("127.0.0.1:%d", m.HostPort)); got != "a" {
			t.Errorf("%s: %q answers, want a", m, got)
		}
	}
	if err := p.Verify(ctx, pub); err != nil {
		t.Error(err)
	}
	h.nft("flush", "ruleset")
	if err := p.Verify(ctx, pub); !errors.Is(err, model.ErrDifferent) {
		t.Errorf("verify after the flush: %v", err)
	}
	if _, err := h.Repair(ctx); err != nil {
		t.Error(err)
	}
	if err := p.Verify(ctx, pub); err != nil {
		t.Errorf("verify after the repair: %v", err)
	}
	if err := p.Collect(ctx, func(life.Holder) bool { return true }); err != nil {
		t.Error(err)
	}
	if got := greets("127.0.0.1:8080"); got != "a" {
		t.Errorf("after a Collect that keeps all: %q answers", got)
	}
	for range 2 {
		if err := p.Remove(ctx, e.ID()); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff(before, h.nft("list", "ruleset")); diff != "" {
		t.Errorf("ruleset after Remove: %s", diff)
	}
}

// A flush is put right by the next attachment for all that it hit, and a port
// that one backend has is not given by the other.
func TestPortsOfOthers(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx := context.Background()
	n := h.network("10.1.0.0/24", WithConfig(model.NetworkConfig{Gateway: true, DefaultGateway: true}))
	if _, err := h.web(n, "a", model.PortMapping{HostPort: 8080, ContainerPort: 80}); err != nil {
		t.Fatal(err)
	}
	b, err := h.web(n, "b")
	if err != nil {
		t.Fatal(err)
	}
	h.publication(b, 8081)
	h.nft("flush", "ruleset")
	other, err := h.NewNetwork(ctx, "bridge", "net2", WithSubnet(netip.MustParsePrefix("10.2.0.0/24")), WithMasquerade())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.web(other, "c"); err != nil {
		t.Fatal(err)
	}
	for port, want := range map[int]string{8080: "a", 8081: "b"} {
		if got := greets(fmt.Sprintf("127.0.0.1:%d", port)); got != want {
			t.Errorf("port %d: %q answers, want %s", port, got, want)
		}
	}
	ipt, err := h.NewNetwork(ctx, "bridge", "net3", WithSubnet(netip.MustParsePrefix("10.3.0.0/24")),
		WithConfig(model.NetworkConfig{Gateway: true, DefaultGateway: true, Backend: model.BackendIPTables}))
	if err != nil {
		t.Fatal(err)
	}
	var held *publish.PortHeldError
	if _, err := h.web(ipt, "d", model.PortMapping{HostPort: 8081, ContainerPort: 80}); !errors.As(err, &held) {
		t.Errorf("a port of nftables by iptables: %v", err)
	}
	if _, err := h.web(ipt, "e", model.PortMapping{HostPort: 8082, ContainerPort: 80}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.web(n, "f", model.PortMapping{HostPort: 8082, ContainerPort: 80}); !errors.As(err, &held) {
		t.Errorf("a port of iptables by nftables: %v", err)
	}
}

// One request that names a port twice: the more specific mapping has it, and what
// means the same is one.
func TestPortTwice(t *testing.T) {
	t.Parallel()
	for _, backend := range []model.Backend{model.BackendNFTables, model.BackendIPTables} {
		t.Run(string(backend), func(t *testing.T) {
			t.Parallel()
			m := newMember(t, backend, backend)
			local := netip.MustParseAddr("127.0.0.1")
			ports := []model.PortMapping{
				{HostPort: 8080, ContainerPort: 80}, {HostIP: local, HostPort: 8080, ContainerPort: 81},
				{HostPort: 9000, HostPortEnd: 9002, ContainerPort: 80}, {HostPort: 9001, ContainerPort: 80},
				{HostPort: 7000, ContainerPort: 80}, {HostPort: 7000, ContainerPort: 80}, {HostIP: local, HostPort: 7000, ContainerPort: 80},
				{HostIP: local, HostPort: 6000, ContainerPort: 81, Sources: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, {HostPort: 6000, HostPortEnd: 6001, ContainerPort: 79},
			}
			e := m.attach(0, ports...)
			m.serveAt(81, "by 81")
			m.verify("with the ports", e)
			for at, want := range map[string]string{
				"127.0.0.1:8080": "by 81", "10.1.0.1:8080": "10.1.0.2", "127.0.0.1:9000": "10.1.0.2", "127.0.0.1:9001": "10.1.0.2",
				"127.0.0.1:7000": "10.1.0.2", "127.0.0.1:6000": "by 81", "10.1.0.1:6001": "10.1.0.2",
			} {
				if got := greets(at); got != want {
					t.Errorf("%s: %q answers, want %q", at, got, want)
				}
			}
			if err := m.networks[0].Remove(context.Background(), m.id(0)); err != nil {
				t.Fatal(err)
			}
			if rules := m.h.nft("list", "ruleset"); strings.Contains(rules, "net1/c/eth0") {
				t.Errorf("rules are left: %s", rules)
			}
		})
	}
}
