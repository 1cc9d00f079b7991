package nodefile

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
)

func seen(t *testing.T) *Seen {
	t.Helper()
	self, subnets := netip.MustParseAddr("192.0.2.1"), []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("fd05::/48")}
	s := See("list", model.TunnelConfig{Self: self, Subnets: subnets, Nodes: []model.Node{
		{Address: self, Subnets: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/24"), netip.MustParsePrefix("fd05::/64")}},
		{Address: self.Next(), Subnets: []netip.Prefix{netip.MustParsePrefix("10.5.1.0/24")}},
	}})
	if s == nil {
		t.Fatal("nothing is noted")
	}
	s.Config, s.Fingerprint, s.Device, s.Path, s.MTU = "c", "f", 7, 1500, 1450
	return s
}

// A note is read again by the host that it is of, and for the same list. Another content of the
// file counts for nothing.
func TestSeen(t *testing.T) {
	lntest.Isolate(t)
	dir, s := t.TempDir(), seen(t)
	d := state.New(dir)
	path := filepath.Join(dir, "networks", "net1", "hosts")
	good := string(s.Encode())
	if err := d.SaveSeen("net1", []byte(good)); err != nil {
		t.Fatal(err)
	}
	if got := ReadSeen(dir, "net1", "list"); got != nil {
		t.Errorf("on a host with another address: %+v", got)
	}
	if err := lntest.Up("lo", "192.0.2.1/32"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, ReadSeen(dir, "net1", "list"), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("(-noted +read):\n%s", diff)
	}
	if got := ReadSeen(dir, "net1", "other"); got != nil {
		t.Errorf("for another list: %+v", got)
	}
	for what, text := range map[string]string{
		"empty": "", "half": good[:len(good)/2], "a list": "[]", "no blocks": strings.Replace(good, `"blocks"`, `"block"`, 1),
		"a wrong block": strings.Replace(good, "10.5.0.0/24", "10.5.0.0", 1), "a wrong number": strings.Replace(good, `"device":7`, `"device":"7"`, 1),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := ReadSeen(dir, "net1", "list"); got != nil {
			t.Errorf("%s: %+v", what, got)
		}
	}
	if err := d.DeleteSeen("net1"); err != nil || ReadSeen(dir, "net1", "list") != nil {
		t.Errorf("deleted: %v", err)
	}
}

// Where the other hosts count for more than the tunnel, or there are none, nothing is noted.
func TestSee(t *testing.T) {
	self, block := netip.MustParseAddr("192.0.2.1"), []netip.Prefix{netip.MustParsePrefix("10.5.0.0/24")}
	good := model.TunnelConfig{Self: self, Subnets: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")}, Nodes: []model.Node{
		{Address: self, Subnets: block}, {Address: self.Next(), Subnets: []netip.Prefix{netip.MustParsePrefix("10.5.1.0/24")}},
	}}
	alone, agent, encrypted, outside := good, good, good, good
	alone.Nodes, agent.Agent, encrypted.Encryption, outside.Subnets = good.Nodes[:1], true, model.WireGuard, block
	for what, c := range map[string]model.TunnelConfig{"alone": alone, "agent": agent, "encrypted": encrypted, "a block outside of the subnets": outside} {
		if s := See("list", c); s != nil {
			t.Errorf("%s: %+v", what, s)
		}
	}
	if See("list", good) == nil || See("", good) != nil {
		t.Error("a list counts by its digest")
	}
	if DigestOf([]byte("ab"), []byte("c")) == DigestOf([]byte("a"), []byte("bc")) {
		t.Error("a list ends nowhere")
	}
}
