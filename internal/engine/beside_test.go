package engine

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
)

// A network and a Publisher publish different ports of one container: what one
// of them removes the other keeps, 127.0.0.1 included.
func TestPublishBesideANetwork(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	n := h.network("10.48.0.0/24", WithMasquerade())
	sb := h.sandbox("c1")
	mapping := func(port int) []PortMapping {
		return []PortMapping{{Protocol: "tcp", HostPort: port, ContainerPort: 80}}
	}
	e, err := n.Attach(ctx, sb, WithPorts(mapping(8080)...))
	must(t, err)
	p, err := h.Publisher("net2", model.PublishConfig{})
	must(t, err)
	pub := Publication{ID: model.ID{Network: "net2", ContainerID: "c1", IfName: "eth0"}, Netns: sb.Path(), Addrs: []netip.Addr{e.Addressing().Addresses[0].Prefix.Addr()}, Ports: mapping(8081)}
	answer(t, sb.Path())
	reached := func(port string, want bool) {
		t.Helper()
		for ns, host := range map[string]string{"/proc/thread-self/ns/net": "127.0.0.1", sb.Path(): "10.48.0.1"} {
			patience := lntest.WaitForNone
			if want {
				patience = lntest.WaitForAnswer
			}
			if got := hears(t, ns, net.JoinHostPort(host, port), patience); got != want {
				t.Errorf("port %s of %s: reached %v, want %v", port, host, got, want)
			}
		}
	}
	for range 2 {
		_, err = p.Publish(ctx, pub)
		must(t, err)
		must(t, e.Verify(ctx))
		must(t, p.Verify(ctx, pub))
		reached("8080", true)
		reached("8081", true)
		must(t, p.Remove(ctx, pub.ID))
		reached("8080", true)
		reached("8081", false)
		must(t, e.Verify(ctx))
	}
	must(t, n.Remove(ctx, e.ID()))
	on, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + e.Interfaces()[0].Name + "/route_localnet")
	if err != nil || string(on) != "0\n" {
		t.Errorf("route_localnet of the bridge is %q, %v", on, err)
	}
	must(t, n.Delete(ctx))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// answer has a server on port 80 of a namespace.
func answer(t *testing.T, ns string) {
	t.Helper()
	var l net.Listener
	lntest.Enter(t, ns, func() {
		var err error
		l, err = net.Listen("tcp4", ":80")
		must(t, err)
	})
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "a")
			_ = c.Close()
		}
	}()
}

// hears says whether a client in a namespace gets the answer.
func hears(t *testing.T, ns, address string, patience time.Duration) (heard bool) {
	t.Helper()
	lntest.Enter(t, ns, func() {
		c, err := lntest.Dial("tcp4", address, patience)
		if err != nil {
			return
		}
		data, err := io.ReadAll(c)
		heard = err == nil && string(data) == "a"
		must(t, c.Close())
	})
	return heard
}
