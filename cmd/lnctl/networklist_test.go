package main

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/driver"
	"github.com/libnet-cni/libnet/internal/driver/null"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
)

// Networks of drivers that are not the engine's are in the list, with their endpoints.
func TestNetworksOfOtherDrivers(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ctx := context.Background()
	s := driver.New("/run/libnet", func(driver.Life) bool { return false })
	n := driver.Network{Name: "nothing", Driver: null.Name}
	l.must(s.Create(ctx, n, null.Capability()))
	_, err := s.CreateEndpoint(ctx, n, driver.Spec{Name: "c9"})
	l.must(err)
	if out := l.lnctl(exitOK, "network", "ls"); strings.Join(strings.Fields(strings.Split(out, "\n")[1]), " ") != "nothing null - - - 1 0" {
		t.Errorf("got\n%s", out)
	}
	if out := l.lnctl(exitOK, "network", "ls", "--json"); !strings.Contains(out, `"driver": "null"`) || strings.Contains(out, "null,") {
		t.Errorf("got\n%s", out)
	}
}

// A network whose configuration names another subnet has two for as long as containers have
// addresses of the earlier one: both are shown, with their endpoints.
func TestNetworkOfTwoSubnets(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	define := func(subnet string) *engine.Network {
		n, err := l.c.DefineNetwork("bridge", "grown", engine.WithConfig(natMode("ln9")), engine.WithSubnet(netip.MustParsePrefix(subnet)))
		l.must(err)
		return n
	}
	shown := func(ls, inspect, json string) {
		t.Helper()
		line := strings.Split(l.lnctl(exitOK, "network", "ls"), "\n")[1]
		if got := strings.Join(strings.Fields(line), " "); got != "grown bridge ln9 ipam-ln "+ls+" 0" {
			t.Errorf("network ls: got %q, want %q", got, ls)
		}
		for command, want := range map[string]string{"inspect": inspect, "inspect --json": json, "ls --json": json} {
			args := append([]string{"network"}, strings.Fields(command)...)
			if command != "ls --json" {
				args = append(args, "grown")
			}
			if out := l.lnctl(exitOK, args...); !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
				t.Errorf("network %s: want %q, got\n%s", command, want, out)
			}
		}
	}
	earlier := define("10.31.0.0/24")
	l.attach(earlier, "c1")
	l.attach(earlier, "c2")
	now := define("10.32.0.0/24")
	l.attach(now, "c3")
	both := "10.32.0.0/24 (1 endpoint), 10.31.0.0/24 (2 endpoints, earlier)"
	shown(both+" 3", "subnets: "+both,
		`"subnets": [ "10.32.0.0/24", "10.31.0.0/24" ], "subnetUse": [ { "subnet": "10.32.0.0/24", "endpoints": 1 }, `+
			`{ "subnet": "10.31.0.0/24", "endpoints": 2, "earlier": true } ]`)

	for _, c := range []string{"c1", "c2"} {
		l.must(now.Remove(context.Background(), model.ID{Network: "grown", ContainerID: c, IfName: "eth0"}))
	}
	shown("10.32.0.0/24 1", "subnets: 10.32.0.0/24 config:",
		`"subnets": [ "10.32.0.0/24" ], "subnetUse": [ { "subnet": "10.32.0.0/24", "endpoints": 1 } ]`)
}
