package foreign

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/nft"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// TestMain gives iptables-legacy a lock of its own: the host's is root's.
func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "foreign")
		if err == nil {
			defer func() { _ = os.RemoveAll(dir) }()
			err = os.Setenv("XTABLES_LOCKFILE", filepath.Join(dir, "xtables.lock"))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

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

// ofRule is a rule of table a that drops br0, ofRules one that drops br1, too.
func ofRule(family, chain, end string, handle uint64) []Drop {
	return []Drop{{Family: family, Table: "a", Chain: chain, End: end, Handle: handle, Named: []string{"br0"}}}
}

func ofRules(family, chain, end string, handle uint64) []Drop {
	all := ofRule(family, chain, end, handle)
	all[0].Named = []string{"br0", "br1"}
	return all
}

// lab makes a bridge br0 and foreign rules: those of nft -f, or words of an iptables
// program, one call per line.
func lab(t *testing.T, program, rules string) {
	t.Helper()
	lntest.Isolate(t)
	command(t, "", "ip", "link", "add", "br0", "type", "bridge")
	command(t, "", "ip", "address", "add", "10.9.0.1/24", "dev", "br0")
	command(t, "", "ip", "address", "add", "fd09::1/64", "dev", "br0")
	if program == "nft" {
		command(t, strings.NewReplacer("; }", ";\n}\n").Replace(rules), "nft", "-f", "-")
		return
	}
	for line := range strings.SplitSeq(rules, "\n") {
		command(t, "", program, strings.Fields(line)...)
	}
}

func TestDrops(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		program, rules string // of nft -f, or words of an iptables program, one call per line
		want           []Drop
	}{
		"nothing": {"nft", "", nil},
		"accepting": {"nft", `table inet a { chain f { type filter hook forward priority 0; policy accept; iifname "br7" drop; iifname "br0" tcp dport 25 drop; }
			chain i { type filter hook input priority 0; policy drop; } chain plain { drop; } }`, nil},
		"a rule drops all of ours": {"nft", `table inet a { chain f { type filter hook prerouting priority 0; policy accept; jump g; }
			chain g { tcp dport 80 accept; iifname "br0" counter drop; } }`,
			[]Drop{{Family: "inet", Table: "a", Chain: "g", End: "drop", Handle: 5, Named: []string{"br0"}}}},
		"a set of interfaces": {"nft", `table inet a { chain f { type filter hook forward priority 0; policy accept; iifname { "br0", "br7" } drop; } }`, ofRule("inet", "f", "drop", 3)},
		"a set without ours":  {"nft", `table inet a { chain f { type filter hook forward priority 0; policy accept; iifname { "br6", "br7" } drop; } }`, nil},
		"a wildcard":          {"nft", `table inet a { chain f { type filter hook forward priority 0; policy accept; oifname "br*" reject; } }`, ofRules("inet", "f", "reject", 2)},
		"ranges of sources": {"nft", `table ip a { set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.0.2.7 }; }
			chain f { type filter hook forward priority 0; policy accept; ip saddr @s drop; } }`, ofRule("ip", "f", "drop", 3)},
		"ranges that join":            {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; ip daddr { 10.9.0.0/25, 10.9.0.128/25 } drop; } }`, ofRule("ip", "f", "drop", 3)},
		"ranges of a part":            {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; ip daddr { 10.9.0.0/25, 10.9.0.192/26, 10.9.1.0/24 } drop; } }`, nil},
		"ranges to the end":           {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; ip saddr { 10.0.0.0-255.255.255.255 } drop; } }`, ofRule("ip", "f", "drop", 2)},
		"ranges without ours":         {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; ip saddr { 0.0.0.0-10.8.255.255, 10.10.0.0-255.255.255.255 } drop; } }`, nil},
		"no source in ranges":         {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; ip saddr != { 192.168.0.0/16, 172.16.0.0/12 } drop; } }`, ofRule("ip", "f", "drop", 3)},
		"no source in ranges of ours": {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; ip saddr != { 10.9.0.0/25 } drop; } }`, nil},
		"a range":                     {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; ip saddr 10.9.0.0-10.9.1.7 drop; } }`, ofRule("ip", "f", "drop", 2)},
		"a range of a part":           {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; ip saddr 10.9.0.9-10.9.1.7 drop; } }`, nil},
		"no range":                    {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; ip saddr != 10.10.0.0-10.12.0.0 drop; } }`, ofRule("ip", "f", "drop", 2)},
		"above an address":            {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; ip saddr >= 10.9.0.0 drop; } }`, ofRule("ip", "f", "drop", 2)},
		"above one of ours":           {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; ip saddr > 10.9.0.0 drop; } }`, nil},
		"ranges with verdicts":        {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; ip saddr vmap { 10.0.0.0/8 : drop, 192.168.0.0/16 : accept }; } }`, ofRule("ip", "f", "drop", 3)},
		"ranges that let ours by": {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; ip saddr vmap { 10.9.0.0/16 : accept, 10.10.0.0-255.255.255.255 : drop }; ip daddr 10.0.0.0/8 accept; drop; } }`,
			[]Drop{{Family: "ip", Table: "a", Chain: "f", Hook: "forward", End: "last rule drop"}}},
		"all else by a map":          {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; ip saddr vmap { 192.168.0.0/16 : accept, * : drop }; } }`, ofRule("ip", "f", "drop", 3)},
		"names by wildcards":         {"nft", `table inet a { chain f { type filter hook forward priority 0; policy accept; iifname { "br*", "docker0" } drop; } }`, ofRules("inet", "f", "drop", 3)},
		"two fields":                 {"nft", `table inet a { chain f { type filter hook forward priority 0; policy accept; iifname . ip saddr { "br0" . 10.9.0.0/16 } drop; } }`, ofRule("inet", "f", "drop", 3)},
		"two fields, one of another": {"nft", `table inet a { chain f { type filter hook forward priority 0; policy accept; iifname . ip daddr { "br0" . 10.9.0.0/16 } drop; } }`, nil},
		"two fields by ranges":       {"nft", `table inet a { chain f { type filter hook forward priority 0; policy accept; iifname . ip saddr { "a*" . 10.9.0.0/16, "br*" . 10.10.0.0/16 } drop; } }`, nil},
		"six ranges":                 {"nft", `table ip6 a { chain f { type filter hook forward priority 0; policy accept; ip6 saddr { fd00::/8, fe80::/10 } drop; } }`, ofRule("ip6", "f", "drop", 3)},
		"none of ours by name":       {"nft", `table inet a { chain f { type filter hook forward priority 0; policy accept; iifname != { "lo", "eth0" } drop; } }`, ofRules("inet", "f", "drop", 3)},
		"all but ours":               {"nft", `table inet a { chain f { type filter hook forward priority 0; policy accept; iifname != "br0" drop; } }`, []Drop{{Family: "inet", Table: "a", Chain: "f", End: "drop", Handle: 2, Named: []string{"br1"}}}},
		"a source network":           {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; ip saddr 10.9.0.0/16 drop; } }`, ofRule("ip", "f", "drop", 2)},
		"a source in a /20":          {"nft", `table inet a { chain f { type filter hook forward priority 0; policy accept; ip daddr 10.9.0.0/20 drop; } }`, ofRule("inet", "f", "drop", 2)},
		"one container":              {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; ip saddr 10.9.0.7 drop; ip saddr 10.8.0.0/16 drop; } }`, nil},
		"a verdict map":              {"nft", `table inet a { chain f { type filter hook forward priority 0; policy accept; iifname vmap { "br0" : drop, "br7" : accept }; } }`, ofRule("inet", "f", "drop", 3)},
		"a jump on condition":        {"nft", `table inet a { chain g { log; drop; } chain f { type filter hook forward priority 0; policy accept; iifname "br0" jump g; } }`, ofRule("inet", "f", "drop", 5)},
		"input": {"nft", `table inet a { chain f { type filter hook forward priority 0; policy accept; }
			chain i { type filter hook input priority 0; policy accept; iifname "br0" drop; ip saddr 10.9.0.0/24 drop; } }`, nil},
		"accepted before":    {"nft", `table inet a { chain f { type filter hook forward priority 0; policy accept; iifname "br0" accept; oifname "br0" accept; ip saddr 10.0.0.0/8 drop; } }`, nil},
		"iptables, a source": {"iptables-nft", "-A FORWARD -s 10.9.0.0/24 -j DROP", []Drop{{Family: "ip", Table: "filter", Chain: "FORWARD", End: "drop", Handle: 2, Named: []string{"br0"}}}},
		"kube-proxy by nft": {"nft", `table ip a { map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 10.96.0.9 . tcp . 80 : goto reject-chain }; }
			chain reject-chain { reject; } chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
			chain f { type filter hook forward priority -110; policy accept; ct state new jump service-endpoints-check; } }`, nil},
		"an index": {"nft", `table inet a { chain f { type filter hook forward priority 0; policy accept; iif "br0" drop; } }`, ofRule("inet", "f", "drop", 2)},
		"docker": {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; jump i; oifname "docker0" ct state established accept; iifname "docker0" oifname != "docker0" accept; }
			chain i { iifname "docker0" oifname != "docker0" jump j; return; } chain j { oifname "docker0" drop; return; } }`, nil},
		"kube-proxy": {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; ct state new jump k; }
			chain k { meta mark & 0x4000 == 0x4000 accept; ip daddr 10.96.0.9 tcp dport 80 reject; ct state invalid drop; } }`, nil},
		"a chain jumped to rejects": {"nft", `table inet a { chain f { type filter hook forward priority 0; policy accept; tcp dport 80 accept; jump g; }
			chain h { reject; } chain g { tcp dport 80 return; goto h; } }`,
			[]Drop{{Family: "inet", Table: "a", Chain: "f", Hook: "forward", End: "last rule reject"}}},
		"a chain jumped to returns": {"nft", `table inet a { chain f { type filter hook forward priority 0; policy accept; jump g; } chain g { return; drop; } }`, nil},
		"prerouting": {"nft", `table ip a { chain f { type filter hook prerouting priority 0; policy accept; ip saddr 10.0.0.0/8 accept; drop; } }`,
			[]Drop{{Family: "ip", Table: "a", Chain: "f", Hook: "prerouting", End: "last rule drop"}}},
		"legacy that rejects": {"iptables-legacy", "-A FORWARD -i br1 -j ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited",
			[]Drop{{Family: "legacy ip", Table: "filter", Chain: "FORWARD", Hook: "forward", End: "last rule reject", Named: []string{"br1"}}}},
		"legacy IPv6 that drops": {"ip6tables-legacy", "-A FORWARD -j DROP",
			[]Drop{{Family: "legacy ip6", Table: "filter", Chain: "FORWARD", Hook: "forward", End: "last rule drop"}}},
		"legacy, a chain jumped to": {"iptables-legacy", "-N last\n-N first\n-A first -p tcp -j RETURN\n-A first -s 10.0.0.1 -j DROP\n-A last -p udp -j ACCEPT\n-A last -j DROP\n-A FORWARD -j first\n-A FORWARD -j last",
			[]Drop{{Family: "legacy ip", Table: "filter", Chain: "FORWARD", Hook: "forward", End: "last rule drop"}}},
		"legacy that accepts all": {"iptables-legacy", "-P FORWARD DROP\n-A FORWARD -j ACCEPT\n-A FORWARD -j DROP", nil},
		"policy": {"nft", `table ip a { chain f { type filter hook forward priority 0; policy drop; } }`,
			[]Drop{{Family: "ip", Table: "a", Chain: "f", Hook: "forward", End: "policy drop"}}},
		"policy that is never reached": {"nft", `table ip6 a { chain f { type filter hook forward priority 0; policy drop; counter accept; } }`, nil},
		"named in another chain of the table": {"nft", `table inet a { chain f { type filter hook forward priority 0; policy drop; jump z; }
			chain z { oifname "br0" accept; iifname "br10" accept; iifname { "br0", "br3" } accept; iifname "br2*" accept; } }`,
			[]Drop{{Family: "inet", Table: "a", Chain: "f", Hook: "forward", End: "policy drop", Named: []string{"br0"}}}},
		"firewalld": {"nft", `table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; policy accept;
			ct state established accept; jump z; reject with icmpx admin-prohibited; } chain z { iifname "br1" accept; } }`,
			[]Drop{{Family: "inet", Table: "firewalld", Chain: "filter_FORWARD", Hook: "forward", End: "last rule reject", Named: []string{"br1"}}}},
		"last rule drops": {"nft", `table bridge a { chain f { type filter hook forward priority 0; policy accept; log counter drop; } }`,
			[]Drop{{Family: "bridge", Table: "a", Chain: "f", Hook: "forward", End: "last rule drop"}}},
		"last rule drops some": {"nft", `table ip a { chain f { type filter hook forward priority 0; tcp dport 80 drop; } }`, nil},
		"iptables": {"iptables-nft", "-P FORWARD DROP\n-A FORWARD -i br1 -j ACCEPT",
			[]Drop{{Family: "ip", Table: "filter", Chain: "FORWARD", Hook: "forward", End: "policy drop", Named: []string{"br1"}}}},
		"iptables that rejects": {"iptables-nft", "-A FORWARD -i br1 -j ACCEPT\n-A FORWARD -j REJECT",
			[]Drop{{Family: "ip", Table: "filter", Chain: "FORWARD", Hook: "forward", End: "last rule reject", Named: []string{"br1"}}}},
		"legacy": {"iptables-legacy", "-P FORWARD DROP\n-A FORWARD -o br0 -j ACCEPT",
			[]Drop{{Family: "legacy ip", Table: "filter", Chain: "FORWARD", Hook: "forward", End: "policy drop", Named: []string{"br0"}}}},
		"legacy IPv6": {"ip6tables-legacy", "-P FORWARD DROP", []Drop{{Family: "legacy ip6", Table: "filter", Chain: "FORWARD", Hook: "forward", End: "policy drop"}}},
		"legacy, a rule drops all of ours": {"iptables-legacy", "-A FORWARD -p tcp -j ACCEPT\n-A FORWARD -i br+ -m comment --comment out -j DROP",
			[]Drop{{Family: "legacy ip", Table: "filter", Chain: "FORWARD", End: "drop", Rule: "-A FORWARD -i br+ -m comment --comment out -j DROP", Named: []string{"br0", "br1"}}}},
		"legacy, a source network": {"iptables-legacy", "-A FORWARD -s 10.9.0.0/16 -j REJECT",
			[]Drop{{Family: "legacy ip", Table: "filter", Chain: "FORWARD", End: "reject", Rule: "-A FORWARD -s 10.9.0.0/16 -j REJECT --reject-with icmp-port-unreachable", Named: []string{"br0"}}}},
		"legacy, a jump on condition": {"iptables-legacy", "-N last\n-A last -j DROP\n-A FORWARD ! -i eth7 -j last",
			[]Drop{{Family: "legacy ip", Table: "filter", Chain: "FORWARD", End: "drop", Rule: "-A FORWARD ! -i eth7 -j last", Named: []string{"br0", "br1"}}}},
		"legacy, accepted before": {"iptables-legacy", "-A FORWARD -i br0 -j ACCEPT\n-A FORWARD -i br0 -j DROP", nil},
		"legacy, all but ours":    {"iptables-legacy", "-A FORWARD ! -i br+ -j DROP", nil},
		"legacy, a port of ours":  {"iptables-legacy", "-A FORWARD -i br0 -p tcp -m tcp --dport 25 -j DROP", nil},
		"a comment of iptables": {"iptables-nft", "-A FORWARD -i br0 -m comment --comment x -j DROP",
			[]Drop{{Family: "ip", Table: "filter", Chain: "FORWARD", End: "drop", Handle: 2, Named: []string{"br0"}}}},
		"legacy drops on input": {"iptables-legacy", "-P INPUT DROP", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab(t, tt.program, tt.rules)
			f := nft.New()
			t.Cleanup(func() { _ = f.Close() })
			if err := f.ApplyNetwork(t.Context(), firewall.Network{Name: "net", Bridge: "br0", IPv4: firewall.Published}); err != nil { // ours are not among them
				t.Fatal(err)
			}
			got, unjudged, err := Drops(t.Context(), "br0", "br1")
			if err != nil || len(unjudged) > 0 {
				t.Fatalf("%v not judged, error %v", unjudged, err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A rule that may drop all of an interface, and is not understood, is named.
func TestUnjudged(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		program, rules string
		want           []Unjudged
	}{
		"single bits": {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; ip saddr & 0.0.0.255 != 0.0.0.9 drop; } }`,
			[]Unjudged{{"ip", "a", "f", "handle 2", "it asks for single bits of an address or a name"}}},
		"not of ours":          {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; iifname "br7" ip saddr & 0.0.0.255 != 0.0.0.9 drop; } }`, nil},
		"of a port":            {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; ip saddr & 0.0.0.255 != 0.0.0.9 tcp dport 80 drop; } }`, nil},
		"accepted":             {"nft", `table ip a { chain f { type filter hook forward priority 0; policy accept; ip saddr & 0.0.0.255 != 0.0.0.9 accept; } }`, nil},
		"of packets to a host": {"nft", `table ip a { chain f { type filter hook input priority 0; policy accept; ip saddr & 0.0.0.255 != 0.0.0.9 drop; } }`, nil},
		"a match of iptables": {"iptables-nft", "-A FORWARD -m u32 --u32 0&0=0 -j DROP",
			[]Unjudged{{"ip", "filter", "FORWARD", "handle 2", "it asks for iptables' match u32"}}},
		"legacy": {"iptables-legacy", "-A FORWARD -i br0 -m u32 --u32 0&0=0 -j DROP",
			[]Unjudged{{"legacy ip", "filter", "FORWARD", `-A FORWARD -i br0 -m u32 --u32 "0x0&0x0=0x0" -j DROP`, "it asks for iptables' match u32"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab(t, tt.program, tt.rules)
			drops, got, err := Drops(t.Context(), "br0", "br1")
			if err != nil || len(drops) > 0 {
				t.Fatalf("%v, error %v", drops, err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Without the program that reads the older tables, the doctor says so.
func TestWithoutTheProgramOfTheOlderTables(t *testing.T) {
	lab(t, "iptables-legacy", "-P FORWARD DROP")
	t.Setenv("PATH", t.TempDir())
	drops, got, err := Drops(t.Context(), "br0")
	want := []Unjudged{{Family: "legacy ip", Table: "filter", Chain: "FORWARD", Why: "iptables-legacy is not installed"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil || len(drops) > 0 {
		t.Errorf("%v, error %v (-want +got):\n%s", drops, err, diff)
	}
}
