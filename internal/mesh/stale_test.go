package mesh

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/service"
)

// Conntrack could not be asked to forget a container when that left a service, and is asked again: no
// change of the service is needed.
func TestForgottenLater(t *testing.T) {
	lntest.IsolateHost(t)
	for _, line := range []string{"link add far type bridge", "link set far up", "addr add 10.6.255.1/16 dev far"} {
		lntest.Run(t, "ip", strings.Fields(line)...)
	}
	m, open := newMesh(), controllers{}
	defer open.close()
	web, one := webOf("web", 1), far("h2", "c1", "shop", "10.6.0.1")
	web.Ports = []service.Port{{Protocol: firewall.UDP, Port: 80, Target: 8080}}
	m.Keep([]Network{{Name: "net1", StateDir: filepath.Join(t.TempDir(), "state"), Device: "br"}})
	m.Defined([]service.Shared{web}, true)
	m.Others([]overlay.Named{one}, true)
	if !m.once(t.Context(), open) {
		t.Fatal(m.Err())
	}
	c, err := net.Dial("udp", net.JoinHostPort(web.VIPs[0].String(), "80"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	led := func() bool {
		data, err := os.ReadFile("/proc/thread-self/net/nf_conntrack")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(data), "src=10.6.0.1 ")
	}
	if !led() {
		t.Fatal("the datagram is not led to the container")
	}
	const count = "/proc/sys/net/netfilter/nf_conntrack_count"
	if err := unix.Mount("/dev/null", count, "", unix.MS_BIND, ""); err != nil { // it has no number
		t.Fatal(err)
	}
	m.Others([]overlay.Named{gone(one)}, false)
	for range 2 {
		if m.once(t.Context(), open) || m.Err() == nil || !led() {
			t.Fatalf("conntrack cannot be asked, and all is well: %v", m.Err())
		}
	}
	if err := unix.Unmount(count, 0); err != nil {
		t.Fatal(err)
	}
	if !m.once(t.Context(), open) || m.Err() != nil || led() {
		t.Errorf("conntrack can be asked again: %v, is led there still: %t", m.Err(), led())
	}
}
