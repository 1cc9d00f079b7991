package routing

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	vishvananda "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/netlink"
)

func TestMain(m *testing.M) { os.Exit(lntest.Main(m)) }

// The kernel says which way a packet goes, and why one goes none.
func TestAsk(t *testing.T) {
	lntest.Isolate(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(lntest.AddLink(&vishvananda.Veth{LinkAttrs: vishvananda.LinkAttrs{Name: "in"}, PeerName: "in2"}))
	must(lntest.AddLink(&vishvananda.Veth{LinkAttrs: vishvananda.LinkAttrs{Name: "out"}, PeerName: "out2"}))
	must(errors.Join(lntest.Up("in2"), lntest.Up("out2"), lntest.Up("in", "10.1.0.1/24"), lntest.Up("out", "10.2.0.1/24")))
	must(vishvananda.RouteAdd(&vishvananda.Route{Dst: lntest.CIDR("10.3.0.0/16"), Type: unix.RTN_BLACKHOLE}))
	must(vishvananda.RouteAdd(&vishvananda.Route{Dst: lntest.CIDR("10.4.0.0/16"), Gw: net.ParseIP("10.2.0.9")}))
	must(vishvananda.NeighAdd(&vishvananda.Neigh{LinkIndex: index(t, "out"), IP: net.ParseIP("10.2.0.9"), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}, State: vishvananda.NUD_PERMANENT}))
	c, err := netlink.Open()
	must(err)
	defer c.Close()
	from := netip.MustParseAddr("10.1.0.5")
	ask := func(to string) (Route, error) {
		return Ask(c, Question{From: from, To: netip.MustParseAddr(to), In: index(t, "in"), Protocol: unix.IPPROTO_TCP, Port: 80})
	}
	if _, err := ask("10.2.0.5"); !errors.Is(err, unix.EHOSTUNREACH) {
		t.Errorf("without forwarding: %v, want EHOSTUNREACH", err)
	}
	must(lntest.Sysctl("ipv4/ip_forward", "1"))
	if r, err := ask("10.4.0.5"); err != nil || r.Out != index(t, "out") || r.Gateway != netip.MustParseAddr("10.2.0.9") || r.Kind != unix.RTN_UNICAST {
		t.Errorf("by a gateway: %+v, %v", r, err)
	}
	if r, err := ask("10.2.0.1"); err != nil || r.Kind != unix.RTN_LOCAL {
		t.Errorf("to this host: %+v, %v", r, err)
	}
	for to, want := range map[string]error{"10.3.0.5": unix.EINVAL, "10.9.0.5": unix.ENETUNREACH} {
		if _, err := ask(to); !errors.Is(err, want) {
			t.Errorf("to %s: %v, want %v", to, err, want)
		}
	}
	if text := Refusing(c, netip.MustParseAddr("10.3.0.5")); text != "blackhole 10.3.0.0/16" {
		t.Errorf("the route that drops is %q", text)
	}
	if text := Refusing(c, netip.MustParseAddr("10.9.0.5")); text != "" {
		t.Errorf("the route that drops is %q, want none", text)
	}
	if n := NeighbourOf(c, index(t, "out"), netip.MustParseAddr("10.2.0.9")); !n.Known || n.Asked || n.MAC.String() != "02:00:00:00:00:09" {
		t.Errorf("neighbour: %+v", n)
	}
	if n := NeighbourOf(c, index(t, "out"), netip.MustParseAddr("10.2.0.8")); n.Known || n.Asked {
		t.Errorf("a neighbour that was never asked for: %+v", n)
	}
}

func index(t *testing.T, name string) int {
	t.Helper()
	link, err := vishvananda.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().Index
}
