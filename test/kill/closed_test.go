package kill

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// outside is the namespace of a machine that has routes to the containers.
const outside = "/run/netns/out"

const closedPort = 4711

// The other network on the bridge: in the second form it keeps no client out.
const (
	first = `{"cniVersion":"1.1.0","name":"first","type":"bridge-ln","bridge":"br-kill","isGateway":true,"internal":true,
		"ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.91.0.0/29","rangeStart":"10.91.0.6","rangeEnd":"10.91.0.6"}],
		[{"subnet":"fd91::/64","rangeStart":"fd91::6","rangeEnd":"fd91::6"}]]}}`
	firstInternal, firstOpen = `"internal":true`, `"internal":false`
)

// closedOne is the container of a closed network, c0, which is asked from outside,
// where no packet may come from, and from the host, whose packets come after.
type closedOne struct {
	t        *testing.T
	from, at []net.Conn // outside and host, by family
	mu       sync.Mutex
	heard    map[string]int
	news     chan struct{}
	asked    int
}

// closedFirst attaches c0 to the internal network, and shows before that what comes
// from outside would be heard.
func (h *host) closedFirst() *closedOne {
	h.t.Helper()
	lntest.BindNetns(h.t, outside)
	h.check(lntest.NoDAD())
	ns, err := os.Open(outside)
	h.check(err)
	h.check(errors.Join(netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "out0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns.Fd()),
	}), ns.Close()))
	lntest.Enter(h.t, outside, func() {
		h.check(lntest.Up("eth0", "198.51.100.2/24", "fd98::2/64"))
		for to, by := range map[string]string{"10.91.0.0/29": "198.51.100.1", "fd91::/64": "fd98::1"} {
			_, dst, err := net.ParseCIDR(to)
			h.check(err)
			h.check(netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(by)}))
		}
	})
	h.check(lntest.Up("out0", "198.51.100.1/24", "fd98::1/64"))
	c := &closedOne{t: h.t, heard: map[string]int{}, news: make(chan struct{}, 1)}
	lntest.Enter(h.t, other, c.listen)
	for _, a := range []string{"10.91.0.6", "fd91::6"} {
		to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(a), closedPort))
		dial := func(conns *[]net.Conn) {
			conn, err := net.DialUDP("udp", nil, to)
			h.check(err)
			h.t.Cleanup(func() { _ = conn.Close() })
			*conns = append(*conns, conn)
		}
		lntest.Enter(h.t, outside, func() { dial(&c.from) })
		defer dial(&c.at)
	}
	open := &host{h.t, []plugin{{"bridge-ln", strings.Replace(first, firstInternal, firstOpen, 1)}}}
	result, err := open.add(c0)
	h.check(err)
	c.hears("out", c.from)
	h.check(errors.Join(open.del(c0, result), open.collect()))
	_, err = (&host{h.t, []plugin{{"bridge-ln", first}}}).add(c0)
	h.check(err)
	return c
}

func (c *closedOne) listen() {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: closedPort})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 64)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			c.mu.Lock()
			c.heard[string(buf[:n])]++
			c.mu.Unlock()
			select {
			case c.news <- struct{}{}:
			default:
			}
		}
	}()
}

func (c *closedOne) has(words string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heard[words] > 0
}

// hears sends words by every family until all are heard.
func (c *closedOne) hears(words string, by []net.Conn) {
	c.t.Helper()
	for i, conn := range by {
		say := fmt.Sprintf("%s %d", words, i)
		for end := time.Now().Add(time.Minute); !c.has(say); {
			if time.Now().After(end) {
				c.t.Fatalf("c0 does not hear %q", say)
			}
			_, _ = conn.Write([]byte(say)) // the kernel may tell of an earlier one
			select {
			case <-c.news:
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}

// still fails the point unless nothing from outside has reached the container, and
// the host does.
func (b *bench) still(where string) {
	b.t.Helper()
	c := b.closed
	if c == nil {
		return
	}
	c.asked++
	secret := fmt.Sprintf("secret %d", c.asked)
	for _, conn := range c.from {
		_, _ = conn.Write([]byte(secret))
	}
	c.hears(fmt.Sprintf("host %d", c.asked), c.at)
	c.mu.Lock()
	defer c.mu.Unlock()
	for words, n := range c.heard {
		if strings.HasPrefix(words, "secret") {
			b.fail("%s: the other network's container was reached from outside: %q, %d times", where, words, n)
			delete(c.heard, words)
		}
	}
}
