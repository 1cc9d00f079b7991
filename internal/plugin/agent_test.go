package plugin

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/pkg/libnet"
)

// What an agent writes, a plugin reads: its own part, and nothing while there
// is none or it is too old.
func TestParseNodeFile(t *testing.T) {
	lntest.Isolate(t)
	dir := t.TempDir()
	self, block := netip.MustParseAddr("192.0.2.1"), []netip.Prefix{netip.MustParsePrefix("10.5.0.0/24"), netip.MustParsePrefix("10.5.7.0/24")}
	good := libnet.NodeFile{
		Network: "net1", VNI: 5000, Port: 4789, MTU: 1450, Self: self, Blocks: block, Subnets: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")},
		Nodes: []libnet.NamedNode{{Name: "h1", Address: self, Blocks: block}, {Name: "h2", Address: self.Next()}},
	}
	want := libnet.TunnelConfig{
		Agent: true, Self: self, VNI: 5000, Port: 4789, Subnets: good.Subnets, Nodes: []libnet.Node{{Address: self, Subnets: block}},
	}
	late, none := good, good
	late.Until, none.Blocks = libnet.Uptime(), nil
	fresh := good
	fresh.Until = libnet.Uptime() + 60
	c, err := libnet.New(libnet.WithStateDir(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, tt := range map[string]struct {
		file  libnet.NodeFile
		keys  string
		ready bool
		mtu   int
	}{
		"good":     {good, "", true, 1450},
		"own MTU":  {good, `,"mtu":1300`, true, 1300},
		"fresh":    {fresh, "", true, 1450},
		"late":     {late, "", false, 0},
		"no block": {none, "", false, 0},
	} {
		if _, err := c.SaveNodeFile(tt.file); err != nil {
			t.Fatal(err)
		}
		got, err := overlay.parse(call(fmt.Sprintf(`"stateDir":%q%s`, dir, tt.keys)))
		if ready := err == nil; ready != tt.ready || !ready && !errors.Is(err, libnet.ErrNotReady) {
			t.Errorf("%s: %v, want ready %t", name, err, tt.ready)
			continue
		}
		if !tt.ready {
			continue
		}
		if diff := cmp.Diff(want, got.network.Tunnel, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" || got.network.MTU != tt.mtu {
			t.Errorf("%s: MTU %d (-want +got):\n%s", name, got.network.MTU, diff)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay", "net1.json"), []byte(`{"network":"net1","self":5`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := overlay.parse(call(fmt.Sprintf(`"stateDir":%q`, dir))); err == nil || errors.Is(err, libnet.ErrNotReady) {
		t.Errorf("a file that is none: %v", err)
	}
}

func TestAgentNetworks(t *testing.T) {
	const list = `{"cniVersion":"1.1.0","name":"net1","plugins":[{"type":"bridge-ln"},
		{"type":"overlay-ln","nodes":["192.0.2.1"],"subnet":"10.9.0.0/16"},
		{"type":"overlay-ln","subnet":["10.5.0.0/16","fd05::/48"],"blockSize":{"ipv4":26},"vni":7,"bridge":"br7","stateDir":"/s","ipam":{"dataDir":"/d"}}]}`
	got, err := AgentNetworks([]byte(list))
	if err != nil || len(got) != 1 {
		t.Fatalf("got %+v, %v, want one", got, err)
	}
	n := got[0]
	if n.Name != "net1" || n.StateDir != "/s" || n.DataDir != "/d" || len(n.Subnets) != 2 || n.Size != (libnet.BlockSize{IPv4: 26, IPv6: 64}) ||
		n.Config.Bridge != "br7" || n.Config.Tunnel.VNI != 7 || !n.Config.AutoMTU || n.Config.GatewayModeIPv6 != libnet.GatewayNAT {
		t.Errorf("got %+v", n)
	}
	for _, bad := range []string{
		`{`, `[]`, `{"name":"net1","type":"overlay-ln"}`, `{"name":"","type":"overlay-ln","subnet":"10.5.0.0/16"}`,
		`{"name":"net1","type":"overlay-ln","subnet":["10.5.0.0/16","10.6.0.0/16"]}`, `{"name":"net1","type":"overlay-ln","subnet":"10.5.0.0/16","vni":"x"}`,
	} {
		if got, err := AgentNetworks([]byte(bad)); err == nil {
			t.Errorf("%s: %+v, want an error", bad, got)
		}
	}
}
