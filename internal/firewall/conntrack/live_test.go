package conntrack

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// host is a namespace whose lo has the addresses of a host and two containers.
type host struct {
	client, published string
	containers        [2]string
}

var hosts = map[string]host{
	"IPv4": {"10.0.0.9", "10.0.0.1", [2]string{"10.1.0.2", "10.1.0.3"}},
	"IPv6": {"fd00::9", "fd00::1", [2]string{"fd00:1::2", "fd00:1::3"}},
}

func (h host) start(t *testing.T) {
	t.Helper()
	lntest.Isolate(t)
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{h.client, h.published, h.containers[0], h.containers[1]} {
		a := netip.MustParseAddr(s)
		ip := &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
		if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: ip, Flags: unix.IFA_F_NODAD}); err != nil {
			t.Fatal(err)
		}
	}
}

// publish has port 5000 of the host lead to port 53 of a container.
func (h host) publish(t *testing.T, container string) {
	t.Helper()
	family, to := "ip", container
	if strings.Contains(container, ":") {
		family, to = "ip6", "["+container+"]"
	}
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`
		table %[1]s t
		delete table %[1]s t
		table %[1]s t {
			chain output {
				type nat hook output priority -100
				%[1]s daddr %[2]s meta l4proto { tcp, udp } th dport 5000 dnat to %[3]s:53
			}
		}`, family, h.published, to))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
}

func listenUDP(t *testing.T, ip string) net.PacketConn {
	t.Helper()
	c, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", net.JoinHostPort(ip, "53"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func dial(t *testing.T, network, from, to string) net.Conn {
	t.Helper()
	d := net.Dialer{Timeout: lntest.WaitForAnswer}
	local := &net.UDPAddr{IP: net.ParseIP(from)}
	d.LocalAddr = local
	if network == "tcp" {
		d.LocalAddr = &net.TCPAddr{IP: local.IP}
	}
	c, err := d.DialContext(context.Background(), network, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// wantAt sends a datagram and fails unless it arrives at server.
func wantAt(t *testing.T, server net.PacketConn, client net.Conn, text string) {
	t.Helper()
	heard, err := lntest.Heard(server, text, lntest.WaitForAnswer, func() error {
		_, err := client.Write([]byte(text))
		return err
	})
	if !heard {
		t.Fatalf("%s does not get %q: %v", server.LocalAddr(), text, err)
	}
}

// TestStaleUDP is what the package is for: a client that goes on sending from
// one port reaches the old container until its entry is gone.
func TestStaleUDP(t *testing.T) {
	t.Parallel()
	for name, h := range hosts {
		for what, f := range map[string]Filter{
			"port":    {Flows: []Flow{{udp, netip.Addr{}, 5000, 0}}},
			"address": {Flows: []Flow{{udp, addr(h.published), 5000, 0}}},
			"target":  {Addrs: []netip.Addr{addr(h.containers[0])}},
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				t.Parallel()
				h.start(t)
				old, successor := listenUDP(t, h.containers[0]), listenUDP(t, h.containers[1])
				h.publish(t, h.containers[0])
				client := dial(t, "udp", h.client, net.JoinHostPort(h.published, "5000"))
				direct := dial(t, "udp", h.client, net.JoinHostPort(h.containers[1], "53"))
				wantAt(t, old, client, "first")
				wantAt(t, successor, direct, "direct")
				h.publish(t, h.containers[1])
				wantAt(t, old, client, "stale")
				if err := flushIn(t.Context(), f); err != nil {
					t.Fatal(err)
				}
				left := strings.Join(flows(t, openConn(t)), ", ")
				kept := netip.AddrPortFrom(addr(h.containers[1]), 53)
				if want := fmt.Sprint("udp ", kept, " ", kept); left != want {
					t.Errorf("left %q, want %q", left, want)
				}
				wantAt(t, successor, client, "new")
			})
		}
	}
}

func TestTCP(t *testing.T) {
	t.Parallel()
	for name, h := range hosts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h.start(t)
			h.publish(t, h.containers[0])
			for _, at := range []string{net.JoinHostPort(h.containers[0], "53"), net.JoinHostPort(h.published, "5001")} {
				l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", at)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = l.Close() })
			}
			dial(t, "tcp", h.client, net.JoinHostPort(h.published, "5000"))
			dial(t, "tcp", h.client, net.JoinHostPort(h.published, "5001"))
			c := openConn(t)
			other := fmt.Sprintf("tcp %[1]s %[1]s", net.JoinHostPort(h.published, "5001"))
			ours := fmt.Sprint("tcp ", net.JoinHostPort(h.published, "5000"), " ", net.JoinHostPort(h.containers[0], "53"))
			if got := flows(t, c); !slices.Equal(got, []string{ours, other}) {
				t.Fatalf("there are %q", got)
			}
			if err := flushIn(t.Context(), Filter{Flows: []Flow{{tcp, addr(h.published), 5000, 0}}}); err != nil {
				t.Fatal(err)
			}
			if got := flows(t, c); !slices.Equal(got, []string{other}) {
				t.Errorf("left %q, want %q", got, other)
			}
		})
	}
}

// TestEmpty needs no entry to be there.
func TestEmpty(t *testing.T) {
	t.Parallel()
	lntest.Isolate(t)
	for _, tt := range cases {
		if err := flushIn(t.Context(), tt.f); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
