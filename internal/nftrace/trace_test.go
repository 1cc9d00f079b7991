package nftrace

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

func TestMain(m *testing.M) { os.Exit(lntest.Main(m)) }

// A table that the kernel refuses, here for a device that is none, is done without. The rule of
// another program that drops the packet is told of, and that it came to no later hook.
func TestFollow(t *testing.T) {
	lntest.Isolate(t)
	if out, err := exec.Command("nft", "add table inet other; add chain inet other c { type filter hook input priority 0; }; add rule inet other c udp dport 9 drop comment \"quiet\"").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	packet := NewPacket()
	local := netip.MustParseAddr("127.0.0.1")
	tracer, err := Start(Match{Source: local, Dest: local, Protocol: unix.IPPROTO_UDP, Port: 9, Data: "libnet", Devices: []string{"nosuch"}}, packet, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tracer.Close() }()
	c, err := net.Dial("udp4", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for _, data := range []string{"another", "libnet"} {
		if _, err := c.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	steps, err := tracer.Follow(ctx)
	if err != nil || len(steps) == 0 {
		t.Fatalf("%v, %v", steps, err)
	}
	seen := map[string]bool{}
	for _, s := range steps {
		seen[s.Chain] = seen[s.Chain] || s.Own()
	}
	for _, chain := range []string{"output", "sent", "postrouting", "prerouting", "translated", "input"} {
		if !seen[chain] {
			t.Errorf("it did not come to %s: %+v", chain, steps)
		}
	}
	if last := steps[len(steps)-1]; !last.Dropped() || last.Comment != "quiet" || last.Hook != "input" || last.Family != "inet" || seen["received"] {
		t.Errorf("the last step is %+v", last)
	}
}
