package iptables

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
)

func TestPortHeld(t *testing.T) {
	t.Parallel()
	f := isolate(t)
	tests := []struct {
		name, held, asked string // host address and ports
		want              string // the part that is held
	}{
		{"same", "* 80", "* 80", "tcp 0.0.0.0:80"},
		{"any for one", "* 80", "192.0.2.1 80", "tcp 192.0.2.1:80"},
		{"one for any", "192.0.2.1 80", "0.0.0.0 80", "tcp 192.0.2.1:80"},
		{"ipv6", "fd20::1 80", "* 80", "tcp [fd20::1]:80"},
		{"port in a range", "* 80-90", "* 85", "tcp 0.0.0.0:85"},
		{"ranges", "* 80-90", "192.0.2.1 88-99", "tcp 192.0.2.1:88-90"},
		{"other addresses", "127.0.0.2 80", "127.0.0.3 80", ""},
		{"other ports", "* 80-90", "* 91-99", ""},
		{"other families", ":: 80", "0.0.0.0 80", ""},
	}
	for _, tt := range tests {
		_, first := plain(1)
		_, second := plain(2)
		first.Ports, second.Ports = parsePorts(t, tt.held), parsePorts(t, tt.asked)
		mustApply(t, f, firewall.Network{}, first)
		apply := func() {
			_, err := f.Apply(t.Context(), firewall.Network{}, second)
			var held *firewall.PortHeldError
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("%s: %v", tt.name, err)
			case tt.want != "" && (!errors.As(err, &held) || held.Owner != first.Owner || held.Port != tt.want):
				t.Errorf("%s: got %v, want %q held by %q", tt.name, err, tt.want, first.Owner)
			}
		}
		if tt.want == "" {
			apply()
		} else {
			equalAfter(t, apply)
		}
		second.Ports[0].Protocol = firewall.UDP
		mustApply(t, f, firewall.Network{}, second)
		mustRemove(t, f, firewall.Network{}, first, second)
	}
}

// parsePorts reads "address first-last", "*" for the zero address.
func parsePorts(t *testing.T, s string) []firewall.PortMap {
	t.Helper()
	p := firewall.PortMap{Protocol: firewall.TCP, ContainerPort: 80}
	var host string
	if _, err := fmt.Sscanf(strings.ReplaceAll(s, "-", " "), "%s %d %d", &host, &p.HostPort, &p.HostPortEnd); err != nil && p.HostPort == 0 {
		t.Fatal(err)
	}
	if host != "*" {
		p.HostIP = netip.MustParseAddr(host)
	}
	return []firewall.PortMap{p}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	f := isolate(t)
	tests := []struct {
		name string
		edit func(*firewall.Network, *firewall.Endpoint)
		want error
	}{
		{"mac", func(_ *firewall.Network, e *firewall.Endpoint) { e.MAC = net.HardwareAddr{2, 0, 0, 0, 0, 1} }, firewall.ErrUnsupported},
		{"wildcard", func(n *firewall.Network, _ *firewall.Endpoint) { n.Bridge = "br+" }, firewall.ErrInvalid},
		{"trusted", func(n *firewall.Network, _ *firewall.Endpoint) { n.Trusted = []string{"a b"} }, firewall.ErrInvalid},
		{"no name", func(n *firewall.Network, _ *firewall.Endpoint) { n.Name = "" }, firewall.ErrInvalid},
		{"owner", func(_ *firewall.Network, e *firewall.Endpoint) { e.Owner = "a\n-F" }, firewall.ErrInvalid},
		{"no bridge", func(_ *firewall.Network, e *firewall.Endpoint) { e.Bridge = "" }, firewall.ErrInvalid},
		{"address", func(_ *firewall.Network, e *firewall.Endpoint) { e.Addrs = []netip.Addr{{}} }, firewall.ErrInvalid},
		{"no port", func(_ *firewall.Network, e *firewall.Endpoint) { e.Ports[0].HostPort = 0 }, firewall.ErrInvalid},
		{"port past the end", func(_ *firewall.Network, e *firewall.Endpoint) { e.Ports[3].ContainerPort = 65530 }, firewall.ErrInvalid},
		{"ports in reverse", func(_ *firewall.Network, e *firewall.Endpoint) { e.Ports[3].HostPortEnd = 1 }, firewall.ErrInvalid},
		{"port twice", func(_ *firewall.Network, e *firewall.Endpoint) { e.Ports[4].HostPort = e.Ports[3].HostPortEnd }, firewall.ErrInvalid},
		{"protocol", func(_ *firewall.Network, e *firewall.Endpoint) { e.Ports[0].Protocol = 1 }, firewall.ErrInvalid},
		{"mark bit", func(_ *firewall.Network, e *firewall.Endpoint) { e.IPTables.MarkBit = 32 }, firewall.ErrInvalid},
		{"condition of two lines", func(_ *firewall.Network, e *firewall.Endpoint) { e.ConditionsIPv4 = []string{"a\nb"} }, firewall.ErrInvalid},
		{"condition", func(_ *firewall.Network, e *firewall.Endpoint) { e.ConditionsIPv4 = []string{"--no-such"} }, firewall.ErrInvalid},
		{"chain", func(_ *firewall.Network, e *firewall.Endpoint) { e.IPTables.SetMarkChain = "a b" }, firewall.ErrInvalid},
	}
	for _, tt := range tests {
		n, e := sample(1)
		tt.edit(&n, &e)
		equalAfter(t, func() {
			if _, err := f.Apply(t.Context(), n, e); !errors.Is(err, tt.want) {
				t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
			}
			if tt.name == "condition" { // seen by iptables alone, after the first table
				mustRemove(t, f, n, e)
			}
		})
	}
}
