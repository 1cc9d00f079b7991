package firewall

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/lntest"
)

func command(t *testing.T, stdin, name string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("needs %s", name)
	}
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}

func TestForwardDrops(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		program, rules string // of nft -f, or words of an iptables program, one call per line
		want           []ForeignChain
	}{
		"nothing": {"nft", "", nil},
		"accepting": {"nft", `table inet a { chain f { type filter hook forward priority 0; policy accept; iifname "br0" drop; }
			chain i { type filter hook input priority 0; policy drop; } chain plain { drop; } }`, nil},
		"policy": {"nft", `table ip a { chain f { type filter hook forward priority 0; policy drop; } }`,
			[]ForeignChain{{"ip", "a", "f", "policy drop", nil}}},
		"policy that is never reached": {"nft", `table ip6 a { chain f { type filter hook forward priority 0; policy drop; counter accept; } }`, nil},
		"named in another chain of the table": {"nft", `table inet a { chain f { type filter hook forward priority 0; policy drop; jump z; }
			chain z { oifname "br0" accept; iifname "br10" accept; iifname { "br0", "br3" } accept; iifname "br2*" accept; } }`,
			[]ForeignChain{{"inet", "a", "f", "policy drop", []string{"br0"}}}},
		"firewalld": {"nft", `table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; policy accept;
			ct state established accept; jump z; reject with icmpx admin-prohibited; } chain z { iifname "br1" accept; } }`,
			[]ForeignChain{{"inet", "firewalld", "filter_FORWARD", "last rule reject", []string{"br1"}}}},
		"last rule drops": {"nft", `table bridge a { chain f { type filter hook forward priority 0; policy accept; log counter drop; } }`,
			[]ForeignChain{{"bridge", "a", "f", "last rule drop", nil}}},
		"last rule drops some": {"nft", `table ip a { chain f { type filter hook forward priority 0; tcp dport 80 drop; } }`, nil},
		"iptables": {"iptables-nft", "-P FORWARD DROP\n-A FORWARD -i br1 -j ACCEPT",
			[]ForeignChain{{"ip", "filter", "FORWARD", "policy drop", []string{"br1"}}}},
		"iptables that rejects": {"iptables-nft", "-A FORWARD -i br1 -j ACCEPT\n-A FORWARD -j REJECT",
			[]ForeignChain{{"ip", "filter", "FORWARD", "last rule reject", []string{"br1"}}}},
		"legacy": {"iptables-legacy", "-P FORWARD DROP\n-A FORWARD -o br0 -j ACCEPT",
			[]ForeignChain{{"legacy ip", "filter", "FORWARD", "policy drop", []string{"br0"}}}},
		"legacy IPv6":           {"ip6tables-legacy", "-P FORWARD DROP", []ForeignChain{{"legacy ip6", "filter", "FORWARD", "policy drop", nil}}},
		"legacy that accepts":   {"iptables-legacy", "-A FORWARD -i br0 -j DROP", nil},
		"legacy drops on input": {"iptables-legacy", "-P INPUT DROP", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lntest.Isolate(t)
			if tt.program == "nft" {
				command(t, strings.NewReplacer("; }", ";\n}\n").Replace(tt.rules), "nft", "-f", "-")
			} else {
				for line := range strings.SplitSeq(tt.rules, "\n") {
					command(t, "", tt.program, strings.Fields(line)...)
				}
			}
			f := New()
			t.Cleanup(func() { _ = f.Close() })
			mustApply(t, f, Network{Name: "net", Bridge: "br0", IPv4: Published}, Endpoint{}) // ours are not among them
			got, err := f.ForwardDrops(context.Background(), "br0", "br1")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
