package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
)

// outside is a neighbour of the host with routes to its containers.
type outside struct {
	t    *testing.T
	path string
}

func (h *realHost) outside() outside {
	h.t.Helper()
	out := outside{h.t, lntest.NewNetns(h.t)}
	ns, err := os.Open(out.path)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = ns.Close() }()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "up0"
	link := &netlink.Veth{LinkAttrs: attrs, PeerName: "out0", PeerNamespace: netlink.NsFd(ns.Fd())}
	if err := netlink.LinkAdd(link); err != nil {
		h.t.Fatal(err)
	}
	setUp := func(name string, addrs []string, via []string) error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		errs := []error{netlink.LinkSetUp(l)}
		for _, a := range addrs {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			addr.Flags = 2 // IFA_F_NODAD
			errs = append(errs, netlink.AddrAdd(l, addr))
		}
		for i := 0; i+1 < len(via); i += 2 {
			_, dst, err := net.ParseCIDR(via[i])
			errs = append(errs, err, netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(via[i+1])}))
		}
		return errors.Join(errs...)
	}
	err = errors.Join(setUp("up0", []string{"192.0.2.1/24", "2001:db8::1/64"}, nil), lntest.In(h.t, out.path, func() error {
		return setUp("out0", []string{"192.0.2.9/24", "2001:db8::9/64"}, []string{"10.1.0.0/24", "192.0.2.1", "fd01::/64", "2001:db8::1"})
	}))
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// socket is a UDP socket in a namespace.
func socket(t *testing.T, path string, port int) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	err := lntest.In(t, path, func() (err error) { c, err = net.ListenUDP("udp", &net.UDPAddr{Port: port}); return err })
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(2 * lntest.WaitForAnswer)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Connections end with the container that began them: a late answer does not reach
// the next container that has the address.
func TestFlowsEndWithTheirOwner(t *testing.T) {
	t.Parallel()
	for _, backend := range []model.Backend{model.BackendNFTables, model.BackendIPTables} {
		for family, peer := range map[string]string{"10.1.0.5": "192.0.2.9", "fd01::5": "2001:db8::9"} {
			for _, ports := range [][]model.PortMapping{nil, {{HostPort: 8080, ContainerPort: 80}}} {
				for _, lost := range []bool{false, true} {
					t.Run(fmt.Sprint(backend, " ", family, " ports ", len(ports), " DEL lost ", lost), func(t *testing.T) {
						t.Parallel()
						flowsEnd(t, backend, netip.MustParseAddr(family), peer, ports, lost)
					})
				}
			}
		}
	}
}

func flowsEnd(t *testing.T, backend model.Backend, addr netip.Addr, peer string, ports []model.PortMapping, lost bool) {
	h := newHost(t)
	ctx := context.Background()
	out := h.outside()
	n := h.network("10.1.0.0/24", WithSubnet(netip.MustParsePrefix("fd01::/64")),
		WithConfig(model.NetworkConfig{Gateway: true, DefaultGateway: true, Masquerade: true, Backend: backend}))
	attach := func(id string) *Sandbox {
		sb := h.sandbox(id)
		if _, err := n.Attach(ctx, sb, WithAddresses(addr), WithPorts(ports...)); err != nil {
			t.Fatal(err)
		}
		return sb
	}
	a, at := attach("a"), socket(t, out.path, 7777)
	var from *net.UDPAddr
	sender := socket(t, a.Path(), 5000)
	lntest.Await(lntest.WaitForAnswer, func() bool { // a new link may lose a datagram
		if _, err := sender.WriteToUDP([]byte("from a"), &net.UDPAddr{IP: net.ParseIP(peer), Port: 7777}); err != nil {
			t.Fatal(err)
		}
		_ = at.SetReadDeadline(time.Now().Add(time.Second))
		_, from, _ = at.ReadFromUDP(make([]byte, 100))
		return from != nil
	})
	if from == nil {
		t.Fatal("nothing comes from a")
	}
	if from.IP.Equal(net.IP(addr.AsSlice())) {
		t.Fatalf("%s is not masqueraded", from)
	}
	if lost { // the address is given again, and no DEL ever came
		if err := errors.Join(n.c.links.Detach(ctx, (&Endpoint{n: n, rec: h.records()["a"]}).ref()), n.ipam.Remove(ctx, model.ID{Network: "net1", ContainerID: "a", IfName: "eth0"})); err != nil {
			t.Fatal(err)
		}
		gone := firewall.Endpoint{Owner: model.ID{Network: "net1", ContainerID: "a", IfName: "eth0"}.String()}
		if err := errors.Join(n.c.rules.NFTables.Remove(ctx, gone), n.c.rules.IPTables.Remove(ctx, gone)); err != nil {
			t.Fatal(err)
		}
	} else if err := n.Remove(ctx, model.ID{Network: "net1", ContainerID: "a", IfName: "eth0"}); err != nil {
		t.Fatal(err)
	}
	b := attach("b")
	sb := socket(t, b.Path(), 5000)
	if _, err := at.WriteToUDP([]byte("meant for a"), from); err != nil {
		t.Fatal(err)
	}
	got := ""
	lntest.Await(lntest.WaitForAnswer, func() bool {
		if _, err := at.WriteToUDP([]byte("meant for b"), &net.UDPAddr{IP: net.IP(addr.AsSlice()), Port: 5000}); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		_ = sb.SetReadDeadline(time.Now().Add(time.Second))
		k, _, _ := sb.ReadFromUDP(buf)
		got = string(buf[:k])
		return got != ""
	})
	if got != "meant for b" {
		t.Errorf("b got %q", got)
	}
}
