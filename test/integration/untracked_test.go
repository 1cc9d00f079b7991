package integration

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// Without rules about connections the kernel tracks none. When a bridge closes, an
// answer that is under way into it belongs to no connection and is lost; the next
// question opens the way. What came in before goes on: its next answer is tracked.
func TestFlowsFromBeforeRules(t *testing.T) {
	for _, backend := range []string{"iptables", "nftables"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.world()
			h.route(netnsPath("world"), "10.83.0.0/24", hostAddr(false).String())
			conf := func(name, start, end, mode string) string {
				c := edit(t, `{"cniVersion":"1.1.0","type":"bridge-ln","bridge":"bru","isDefaultGateway":true,"ipam":{"type":"ipam-ln","subnet":"10.83.0.0/24"}}`,
					keys{"name": name, "backend": backend, "ipam.rangeStart": start, "ipam.rangeEnd": end})
				if mode != "" {
					c = edit(t, c, keys{"gatewayMode": mode})
				}
				return c
			}
			addr := h.theAddress(h.must(attachment("bridge-ln", "o", h.netns("o"), conf("open", "10.83.0.10", "10.83.0.19", "")).as("ADD")))
			inside, outside := h.udp("o", addr), h.udp("world", worldAddr(false))
			server, client := h.udp("o", addr), h.udp("world", worldAddr(false))
			inside.send(outside, "question")
			outside.gets("question")
			client.send(server, "question")
			server.gets("question")

			h.must(attachment("bridge-ln", "n", h.netns("n"), conf("shut", "10.83.0.20", "10.83.0.29", "nat")).as("ADD"))
			outside.send(inside, "lost answer")
			inside.getsNothing()
			server.send(client, "answer")
			client.gets("answer")
			client.send(server, "next question")
			server.gets("next question")
			inside.send(outside, "next question")
			outside.gets("next question")
			outside.send(inside, "answer")
			inside.gets("answer")
			h.udp("world", worldAddr(false)).send(server, "from outside")
			server.getsNothing()
		})
	}
}

// udpEnd is a UDP socket in a namespace.
type udpEnd struct {
	t    testing.TB
	conn *net.UDPConn
}

func (h *host) udp(ns string, at netip.Addr) udpEnd {
	h.t.Helper()
	e := udpEnd{t: h.t}
	lntest.Enter(h.t, netnsPath(ns), func() {
		var err error
		e.conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: at.AsSlice()})
		h.check(err)
	})
	h.t.Cleanup(func() { _ = e.conn.Close() })
	return e
}

func (e udpEnd) send(to udpEnd, text string) {
	e.t.Helper()
	if _, err := e.conn.WriteToUDPAddrPort([]byte(text), to.conn.LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
		e.t.Fatal(err)
	}
}

func (e udpEnd) gets(want string) {
	e.t.Helper()
	if got, err := e.read(lntest.WaitForAnswer); got != want {
		e.t.Errorf("got %q, want %q: %v", got, want, err)
	}
}

func (e udpEnd) getsNothing() {
	e.t.Helper()
	if got, err := e.read(noPingWait); !errors.Is(err, os.ErrDeadlineExceeded) {
		e.t.Errorf("got %q, %v, want nothing", got, err)
	}
}

func (e udpEnd) read(wait time.Duration) (string, error) {
	var buf [100]byte
	if err := e.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return "", err
	}
	n, err := e.conn.Read(buf[:])
	return string(buf[:n]), err
}
