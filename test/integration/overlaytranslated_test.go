package integration

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// Packets whose destination another program translates on one host to a container of another
// host get there, as by the NodePort of a Service in Kubernetes, and the answers come back;
// whether by nftables or by iptables, and masqueraded or not on the way. Into an
// internal network it does not, nor does anything get in untranslated.
func TestOverlayTranslated(t *testing.T) {
	for name, tt := range map[string]struct {
		keys map[string]any
		want bool
	}{
		"nat":             {nil, true},
		"nat-unprotected": {map[string]any{"gatewayMode": "nat-unprotected"}, true},
		"routed":          {map[string]any{"gatewayMode": "routed"}, true},
		"internal":        {map[string]any{"internal": true}, false},
	} {
		for _, by := range []string{"nft", "iptables"} {
			t.Run(name+","+by, func(t *testing.T) {
				t.Parallel()
				c := newCluster(t, 2, 1500, false)
				c.join("x", netip.MustParseAddr("192.0.2.9"), 1500)
				c.add(0, "h1", tt.keys)
				far := c.add(0, "h2", tt.keys)
				c.answerHello(far.netns, 80)
				to := netip.AddrPortFrom(far.addresses[0], 80)
				if got := c.hello(netnsPath("h1"), to, agentPatience); got != "hello" {
					t.Fatalf("h1 itself got %q: the test reaches nothing", got)
				}
				c.in(netnsPath("h1"), func() { c.nodePort(by, 30080, to) })
				node := netip.AddrPortFrom(c.address(0), 30080)
				for range 2 { // a second connection, too
					if got := c.hello(netnsPath("x"), node, pick2(tt.want, agentPatience, noPingWait)); (got == "hello") != tt.want {
						t.Errorf("by the node's port: got %q, want an answer: %t", got, tt.want)
					}
				}
				c.route(netnsPath("x"), "10.80.0.0/16", c.address(0).String())
				if got := c.hello(netnsPath("x"), to, noPingWait); got != "" {
					t.Errorf("untranslated: got %q, want nothing", got)
				}
			})
		}
	}
}

func pick2[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}

// nodePort translates and masquerades as kube-proxy does.
func (c *cluster) nodePort(by string, port int, to netip.AddrPort) {
	c.t.Helper()
	if by == "iptables" {
		c.exec("iptables", strings.Fields(fmt.Sprintf("-w -t nat -A PREROUTING -i eth0 -p tcp --dport %d -j MARK --set-mark 0x4000", port))...)
		c.exec("iptables", strings.Fields(fmt.Sprintf("-w -t nat -A PREROUTING -i eth0 -p tcp --dport %d -j DNAT --to-destination %s", port, to))...)
		c.exec("iptables", strings.Fields("-w -t nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE")...)
		return
	}
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`table ip proxy {
		chain pre { type nat hook prerouting priority -100; iifname eth0 tcp dport %d meta mark set 0x4000 dnat to %s; }
		chain post { type nat hook postrouting priority 100; meta mark 0x4000 masquerade; }
	}`, port, to))
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("nft: %v: %s", err, out)
	}
}

// answerHello says hello to each client.
func (c *cluster) answerHello(netns string, port int) {
	c.t.Helper()
	var l net.Listener
	c.in(netns, func() {
		var err error
		l, err = net.Listen("tcp4", fmt.Sprint(":", port))
		c.check(err)
	})
	c.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "hello")
			_ = conn.Close()
		}
	}()
}

// hello returns what a server says; nothing if it does not within a time.
func (c *cluster) hello(netns string, to netip.AddrPort, wait time.Duration) (says string) {
	c.t.Helper()
	c.in(netns, func() {
		conn, err := lntest.Dial("tcp4", to.String(), wait)
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(wait))
		data, _ := io.ReadAll(conn)
		says = string(data)
	})
	return says
}
