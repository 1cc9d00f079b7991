package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
)

// The endpoint with the highest priority has the default route, in any order of
// attachment, and keeps its priority when it leaves and joins again.
func TestGatewayPriority(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	sb := h.sandbox("c1")
	networks := map[string]*Network{}
	for i, name := range []string{"net1", "net2", "net3"} {
		n, err := h.NewNetwork(ctx, "bridge", name, WithSubnet(netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/24", 51+i))),
			WithConfig(model.NetworkConfig{Gateway: true, DefaultGateway: true, GatewayPriority: i % 2}))
		must(t, err)
		networks[name] = n
	}
	attach := func(name, ifName string, opts ...EndpointOption) *Endpoint {
		e, err := networks[name].Attach(ctx, sb, append(opts, WithIfName(ifName))...)
		must(t, err)
		return e
	}
	first := attach("net1", "eth0")
	attach("net2", "eth1")
	attach("net3", "eth2", WithGatewayPriority(-3))
	if got, want := order4(t, sb.Path()), "10.52.0.1 10.51.0.1 10.53.0.1"; got != want {
		t.Errorf("default routes by %s, want %s", got, want)
	}
	for e, want := range map[*Endpoint]int{first: 0, attach("net2", "eth1"): 1, attach("net3", "eth2", WithGatewayPriority(99)): -3} {
		if got := e.rec.GatewayPriority; got != want {
			t.Errorf("%s: priority %d, want %d", e.n.def.Name, got, want)
		}
		must(t, e.Verify(ctx))
	}
	must(t, networks["net3"].Remove(ctx, model.ID{Network: "net3", ContainerID: "c1", IfName: "eth2"}))
	third := attach("net3", "eth2", WithGatewayPriority(2))
	if got, want := order4(t, sb.Path()), "10.53.0.1 10.52.0.1 10.51.0.1"; got != want {
		t.Errorf("default routes by %s, want %s", got, want)
	}
	must(t, errors.Join(third.Leave(ctx), third.Join(ctx, sb)))
	if got, want := order4(t, sb.Path()), "10.53.0.1 10.52.0.1 10.51.0.1"; got != want {
		t.Errorf("joined again: default routes by %s, want %s", got, want)
	}
	var bad *model.ConfigError
	if _, err := networks["net1"].Attach(ctx, sb, WithIfName("eth9"), WithGatewayPriority(math.MaxInt32+1)); !errors.As(err, &bad) || bad.Key != "gwPriority" {
		t.Errorf("a priority beyond int32: %v", err)
	}
}

// order4 lists the gateways of a namespace's default routes, best first.
func order4(t *testing.T, ns string) string {
	t.Helper()
	var gateways []string
	lntest.Enter(t, ns, func() {
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, netlink.RT_FILTER_DST)
		must(t, err)
		last := -1
		for _, r := range routes { // the kernel lists them in its order
			if r.Priority <= last {
				t.Errorf("metric %d after %d", r.Priority, last)
			}
			last = r.Priority
			gateways = append(gateways, r.Gw.String())
		}
	})
	return strings.Join(gateways, " ")
}
