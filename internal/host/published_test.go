package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/netlink"
)

func TestDeviceTo(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if _, err := h.DeviceTo(netip.MustParseAddr("192.0.2.1")); !errors.Is(err, netlink.ErrNotFound) {
		t.Errorf("no routes: got %v, want ErrNotFound", err)
	}
	up0 := &vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: "up0"}}
	up1 := &vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: "up1"}}
	err := errors.Join(lntest.AddLink(up0, "10.0.0.1/24", "fd00:1::1/64"), vnl.LinkSetUp(up0),
		lntest.AddLink(up1, "10.0.1.1/24", "fd00:2::1/64"), vnl.LinkSetUp(up1))
	for _, r := range []vnl.Route{
		{Dst: lntest.CIDR("203.0.113.0/24"), Gw: net.ParseIP("10.0.1.9"), LinkIndex: up1.Attrs().Index},
		{Dst: lntest.CIDR("10.8.0.0/24"), Type: unix.RTN_BLACKHOLE}, {Dst: lntest.CIDR("10.8.1.0/24"), Type: unix.RTN_UNREACHABLE},
		{Dst: lntest.CIDR("10.8.2.0/24"), Type: unix.RTN_PROHIBIT}, {Dst: lntest.CIDR("fd00:8::/64"), Type: unix.RTN_BLACKHOLE},
		{Dst: lntest.CIDR("fd00:9::/64"), Type: unix.RTN_UNREACHABLE},
	} {
		err = errors.Join(err, vnl.RouteAdd(&r))
	}
	if err != nil {
		t.Fatal(err)
	}
	lntest.Await(lntest.WaitForAnswer, func() bool { // the kernel makes an IPv6 address its own in its own time
		dev, err := h.DeviceTo(netip.MustParseAddr("fd00:2::1"))
		return err != nil || dev == "lo"
	})
	for _, tt := range []struct{ to, want string }{
		{"10.0.0.7", "up0"}, {"10.0.1.7", "up1"}, {"::ffff:10.0.1.7", "up1"}, {"203.0.113.5", "up1"},
		{"10.0.0.1", "lo"}, {"127.0.0.1", "lo"}, {"fd00:1::7", "up0"}, {"fd00:2::7", "up1"}, {"fd00:2::1", "lo"}, {"::1", "lo"},
		{"192.0.2.1", ""}, {"2001:db8::1", ""}, {"10.8.0.1", ""}, {"10.8.1.1", ""}, {"10.8.2.1", ""}, {"fd00:8::1", ""}, {"fd00:9::1", ""},
	} {
		got, err := h.DeviceTo(netip.MustParseAddr(tt.to))
		if got != tt.want || (tt.want == "") != errors.Is(err, netlink.ErrNotFound) || tt.want != "" && err != nil {
			t.Errorf("%s: got %q, %v, want %q", tt.to, got, err, tt.want)
		}
	}
	if _, err := h.DeviceTo(netip.Addr{}); !errors.Is(err, netlink.ErrNotFound) {
		t.Errorf("no address: got %v, want ErrNotFound", err)
	}
}

func TestSetRouteLocalnet(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if err := lntest.AddLink(&vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: "br.0"}}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ on, changed bool }{{false, false}, {true, true}, {true, false}, {false, true}} {
		changed, err := h.SetRouteLocalnet("br.0", tt.on)
		if changed != tt.changed || err != nil {
			t.Errorf("%v: got %v, %v, want %v", tt.on, changed, err, tt.changed)
		}
		have, err := GetSysctl("net/ipv4/conf/br.0/route_localnet")
		if (have == "1") != tt.on || err != nil {
			t.Errorf("after %v: got %q, %v", tt.on, have, err)
		}
	}
	if changed, err := h.SetRouteLocalnet("gone0", false); changed || err != nil {
		t.Errorf("off, no interface: got %v, %v", changed, err)
	}
	if _, err := h.SetRouteLocalnet("gone0", true); !errors.Is(err, netlink.ErrNotFound) {
		t.Errorf("on, no interface: got %v, want ErrNotFound", err)
	}
	if _, err := h.SetRouteLocalnet("../all", true); err == nil {
		t.Error("../all: no error")
	}
}

func TestEphemeralPorts(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	var odd strings.Builder // longer than the first buffers
	for p := 40001; p < 60000; p += 2 {
		fmt.Fprintf(&odd, ",%d", p)
	}
	for _, tt := range []struct {
		list     string
		apart    []uint16
		notApart []uint16
	}{
		{"", nil, []uint16{0, 1, 40000, 65535}},
		{"40000", []uint16{40000}, []uint16{39999, 40001}},
		{"8080,40000-40010,65535", []uint16{8080, 40000, 40005, 40010, 65535}, []uint16{8081, 39999, 40011, 65534}},
		{odd.String()[1:], []uint16{40001, 59999}, []uint16{40000, 59998}},
	} {
		for path, value := range map[string]string{portRange: "40000 40100", reservedPorts: tt.list + "\n"} {
			if err := writeWhole("/proc/sys/"+path, value); err != nil {
				t.Fatal(err)
			}
		}
		first, last, reserved, err := h.EphemeralPorts()
		if first != 40000 || last != 40100 || err != nil {
			t.Fatalf("got %d, %d, %v", first, last, err)
		}
		for _, p := range tt.apart {
			if !reserved(p) {
				t.Errorf("%.40q: %d is not reserved", tt.list, p)
			}
		}
		for _, p := range tt.notApart {
			if reserved(p) {
				t.Errorf("%.40q: %d is reserved", tt.list, p)
			}
		}
	}
}

// writeWhole goes on where the kernel stopped: it takes a page at a time.
func writeWhole(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

func TestParsePorts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		list string
		want []ports
		bad  bool
	}{
		{"", nil, false},
		{"80", []ports{{80, 80}}, false},
		{"80,90-99", []ports{{80, 80}, {90, 99}}, false},
		{"80,", nil, true}, {"x", nil, true}, {"9-8", nil, true}, {"65536", nil, true}, {"1-2-3", nil, true}, {"-1", nil, true},
	} {
		got, err := parsePorts(tt.list)
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(ports{})); diff != "" || (err != nil) != tt.bad {
			t.Errorf("%q: %v (-want +got):\n%s", tt.list, err, diff)
		}
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if err := lntest.AddLink(&vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: "br0"}}, "10.0.0.1/24"); err != nil {
		t.Fatal(err)
	}
	for _, l := range []struct{ network, addr string }{
		{"tcp4", "0.0.0.0:1"}, {"tcp4", "10.0.0.1:2"}, {"tcp6", "[::1]:3"}, {"tcp", "[::]:4"}, {"tcp6", "[::]:5"},
	} {
		c, err := (&net.ListenConfig{}).Listen(t.Context(), l.network, l.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		u, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp"+l.network[3:], l.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = u.Close() })
	}
	for _, tt := range []struct {
		ip   string
		want string // the ports in use
	}{
		{"", "1 2 3 4 5"}, {"0.0.0.0", "1 2 4"}, {"127.0.0.1", "1 4"}, {"10.0.0.1", "1 2 4"}, {"::ffff:10.0.0.1", "1 2 4"},
		{"::", "3 4 5"}, {"::1", "3 4 5"}, {"192.0.2.1", ""},
	} {
		ip, _ := netip.ParseAddr(tt.ip)
		for _, proto := range []string{"tcp", "udp", "sctp"} {
			var got []string
			for port := range uint16(7) {
				if port > 0 && h.PortInUse(proto, ip, port) {
					got = append(got, fmt.Sprint(port))
				}
			}
			want := tt.want
			if proto == "sctp" {
				want = ""
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s of %q: %v in use, want %s", proto, tt.ip, got, want)
			}
		}
	}
}

// TestPortAfterConnection needs a port that only a connection which its server
// closed still holds (TIME_WAIT).
func TestPortAfterConnection(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	client, err := (&net.Dialer{}).DialContext(t.Context(), "tcp4", "127.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(server.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Fatal("the connection goes on")
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if h.PortInUse("tcp", netip.MustParseAddr("127.0.0.1"), 80) {
		t.Error("port 80 is in use")
	}
}
