package returnpath

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/lntest"
)

func TestMain(m *testing.M) { os.Exit(lntest.Main(m)) }

// state is all that return paths are made of.
func state(t testing.TB) string {
	t.Helper()
	all := []string{lntest.Run(t, "nft", "list", "ruleset")}
	for _, family := range []string{"-4", "-6"} {
		all = append(all, lntest.Run(t, "ip", family, "rule"), lntest.Run(t, "ip", family, "route", "show", "table", "all", "proto", "108"))
	}
	return strings.Join(all, "\n")
}

func newVXLAN(t testing.TB, name string, vni int) {
	t.Helper()
	if err := netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: name}, VxlanId: vni, Port: 4789}); err != nil {
		t.Fatal(err)
	}
	if err := lntest.Up(name, "10.80.0.0/32", "fd80::/128"); err != nil {
		t.Fatal(err)
	}
}

func peer(n byte) Peer {
	return Peer{[6]byte{2, 0, 0, 0, 0, n}, []netip.Addr{netip.AddrFrom4([4]byte{10, 80, n, 0}), netip.MustParseAddr("fd80:0:0:" + string('0'+rune(n)) + "::")}}
}

func network(device string, peers ...Peer) Network {
	return Network{Device: device, Nets: lntest.Prefixes("10.80.0.0/16", "fd80::/48"), Peers: peers}
}

// foreign are rules of other programs, beside ours and at the same preferences.
func foreign(t testing.TB) {
	t.Helper()
	for _, family := range []string{"-4", "-6"} {
		lntest.Run(t, "ip", family, "rule", "add", "pref", "107", "fwmark", "0x1", "table", "1000")
		lntest.Run(t, "ip", family, "rule", "add", "pref", "109", "fwmark", "0x6c6e0001", "table", "1001")
		lntest.Run(t, "ip", family, "rule", "add", "pref", "110", "fwmark", "0x2", "table", "1002")
	}
	lntest.Run(t, "nft", "add", "table", "inet", "other")
}

func open(t testing.TB) *Paths {
	t.Helper()
	p, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func ensure(t testing.TB, p *Paths, n Network) {
	t.Helper()
	if err := p.Ensure(context.Background(), n); err != nil {
		t.Fatal(err)
	}
}

// marks returns the marks of senders, by MAC address.
func marks(t testing.TB) map[string]string {
	t.Helper()
	all := map[string]string{}
	for line := range strings.Lines(lntest.Run(t, "nft", "list", "map", "inet", TableName, "senders")) {
		for element := range strings.SplitSeq(strings.TrimPrefix(strings.TrimSpace(line), "elements = {"), ",") {
			if key, mark, ok := strings.Cut(element, " : "); ok && strings.Contains(mark, "0x6c6e") {
				all[strings.TrimSpace(key)] = strings.Trim(mark, " }")
			}
		}
	}
	return all
}

// Hosts come and go, of two networks; a host keeps its mark; nothing is left with the last one,
// and what other programs have stays.
func TestHostsComeAndGo(t *testing.T) {
	lntest.Isolate(t)
	newVXLAN(t, "vx-a", 7)
	newVXLAN(t, "vx-b", 8)
	foreign(t)
	before := state(t)
	p := open(t)
	ensure(t, p, network("vx-a"))
	if now := state(t); now != before {
		t.Errorf("without a host there is\n%s", now)
	}
	ensure(t, p, network("vx-a", peer(1), peer(2)))
	ensure(t, p, network("vx-b", peer(1), peer(3)))
	first := marks(t)
	if len(first) != 4 {
		t.Fatalf("marks %v, want 4", first)
	}
	for _, family := range []string{"-4", "-6"} {
		rules := lntest.Run(t, "ip", family, "rule")
		if n := strings.Count(rules, "108:"); n != 5 {
			t.Errorf("%d rules of %s, want one for each host and one that skips them:\n%s", n, family, rules)
		}
		if !strings.Contains(rules, "108:\tnot from all fwmark 0x6c6e0000/0xffffe000 goto 109") {
			t.Errorf("rules of %s:\n%s", family, rules)
		}
	}
	for to, want := range map[string]string{"192.0.2.9": "via 10.80.1.0 dev vx-a", "2001:db8::9": "via fd80:0:0:1:: dev vx-a"} {
		if got := lntest.Run(t, "ip", "route", "get", to, "mark", "0x6c6e0001"); !strings.Contains(got, want) {
			t.Errorf("way to %s: %s, want %s", to, got, want)
		}
	}
	settled := state(t)
	for range 2 {
		ensure(t, open(t), network("vx-a", peer(2), peer(1)))
	}
	if now := state(t); now != settled {
		t.Errorf("a second call changed something:\n%s\nbefore:\n%s", now, settled)
	}
	ensure(t, p, network("vx-a", peer(2)))
	ensure(t, p, network("vx-a", peer(2), peer(4)))
	now := marks(t)
	for key, mark := range now {
		if was, had := first[key]; had && was != mark {
			t.Errorf("%s has mark %s, and had %s", key, mark, was)
		}
	}
	if len(now) != 4 {
		t.Errorf("marks %v, want 4", now)
	}
	ensure(t, p, network("vx-a"))
	ensure(t, p, network("vx-b"))
	if now := state(t); now != before {
		t.Errorf("left:\n%s\nwant:\n%s", now, before)
	}
}

// The output of "nft list ruleset" can be read by "nft -f".
func TestSavedAndRestored(t *testing.T) {
	lntest.Isolate(t)
	newVXLAN(t, "vx-a", 7)
	p := open(t)
	ensure(t, p, network("vx-a", peer(1), peer(2)))
	saved := lntest.Run(t, "nft", "list", "ruleset")
	file := filepath.Join(t.TempDir(), "saved")
	if err := os.WriteFile(file, []byte(saved), 0o600); err != nil {
		t.Fatal(err)
	}
	lntest.Run(t, "nft", "flush", "ruleset")
	lntest.Run(t, "nft", "-f", file)
	if now := lntest.Run(t, "nft", "list", "ruleset"); sorted(now) != sorted(saved) {
		t.Errorf("it was saved as\n%s\nand is now\n%s", saved, now)
	}
	before := marks(t)
	ensure(t, p, network("vx-a", peer(1), peer(2)))
	if now := marks(t); len(now) != 2 || !maps.Equal(now, before) {
		t.Errorf("marks are %v, and were %v", now, before)
	}
}

// Whatever part is lost, or left by a call that was killed, the next one brings to the same end,
// and hosts keep their marks if either of table and routes is there.
func TestWhatIsLost(t *testing.T) {
	lntest.Isolate(t)
	newVXLAN(t, "vx-a", 7)
	foreign(t)
	before := state(t)
	want := network("vx-a", peer(3), peer(5))
	ensure(t, open(t), network("vx-a", peer(1), peer(3), peer(5)))
	ensure(t, open(t), want) // so that the marks are not those of a new beginning
	whole := state(t)
	for _, damage := range []string{
		"nft delete table inet " + TableName,
		"nft flush chain inet " + TableName + " prerouting",
		"nft flush map inet " + TableName + " senders",
		"nft flush set inet " + TableName + " marks",
		"nft add element inet " + TableName + " marks '{ 0x6c6e0009 }'",
		"ip rule del pref 108 fwmark 0x6c6e0003",
		"ip rule del pref 109 nop",
		"ip -6 rule del pref 108 fwmark 0x6c6e0002",
		"ip route flush table 0x6c6e0003",
		"ip -6 route flush table 0x6c6e0002",
		"ip route del throw 10.80.0.0/16 table 0x6c6e0002",
		"ip route replace default via 10.80.9.0 dev vx-a onlink table 0x6c6e0002 proto 108",
		"ip link set vx-a down; ip link set vx-a up",
		"ip rule add pref 108 fwmark 0x6c6e0009 table 0x6c6e0009 protocol 108",
		"ip route add throw 10.81.0.0/16 table 0x6c6e0009 proto 108",
	} {
		lntest.Run(t, "sh", "-c", damage)
		ensure(t, open(t), want)
		if now := sorted(state(t)); now != sorted(whole) {
			t.Errorf("after %s:\n%s\nwant:\n%s", damage, now, sorted(whole))
		}
	}
	for _, damage := range []string{"true", "nft delete table inet " + TableName, "ip rule del pref 109 nop", "ip link del vx-a"} {
		ensure(t, open(t), want)
		lntest.Run(t, "sh", "-c", damage)
		if err := open(t).Remove(context.Background(), "vx-a"); err != nil {
			t.Fatal(err)
		}
		left := state(t)
		if damage != "ip link del vx-a" && left != before || strings.Contains(left, "6c6e0002") || strings.Contains(left, TableName) {
			t.Errorf("after %s Remove left:\n%s\nwant:\n%s", damage, left, before)
		}
	}
}

// Our table is lost, and a call for one network leaves the paths of the others, which keep their
// marks, too; Remove of one does so as well, and the last leaves nothing.
func TestTableIsLostOfNetworks(t *testing.T) {
	lntest.Isolate(t)
	before := state(t)
	var all []Network
	for i, device := range []string{"vx-a", "vx-b", "vx-c"} {
		newVXLAN(t, device, 7+i)
		all = append(all, network(device, peer(1), peer(2)))
		ensure(t, open(t), all[i])
	}
	whole, marked := sorted(state(t)), marks(t)
	routing := func() (all string) {
		for _, family := range []string{"-4", "-6"} {
			all += lntest.Run(t, "ip", family, "rule") + lntest.Run(t, "ip", family, "route", "show", "table", "all", "proto", "108")
		}
		return sorted(strings.ReplaceAll(all, "\n", ","))
	}
	led := routing()
	for _, damage := range []string{"true", "ip rule del pref 108 not fwmark 0x6c6e0000/0xffffe000"} {
		lntest.Run(t, "sh", "-c", "nft delete table inet "+TableName+"; "+damage)
		p := open(t)
		for i, n := range all {
			ensure(t, p, n)
			if now := routing(); now != led {
				t.Errorf("%s: after the call for network %d:\n%s\nwant:\n%s", damage, i, now, led)
			}
		}
		if now := sorted(state(t)); now != whole || !maps.Equal(marks(t), marked) {
			t.Errorf("%s: in the end:\n%s\nwant:\n%s", damage, now, whole)
		}
	}
	lntest.Run(t, "nft", "delete", "table", "inet", TableName)
	p := open(t)
	ensure(t, p, network("vx-a"))
	if rules := lntest.Run(t, "ip", "rule"); strings.Count(rules, "108:") != 5 || !strings.Contains(rules, "109:") {
		t.Errorf("Remove of one network left these of two others:\n%s", rules)
	}
	ensure(t, p, network("vx-b"))
	ensure(t, p, network("vx-c"))
	for _, n := range all {
		lntest.Run(t, "ip", "link", "del", n.Device)
	}
	if now := state(t); now != before {
		t.Errorf("left:\n%s\nwant:\n%s", now, before)
	}
}

// The watch tells of each removed rule of ours of the routing policy, and of no other rule.
func TestWatch(t *testing.T) {
	lntest.Isolate(t)
	newVXLAN(t, "vx-a", 7)
	foreign(t)
	ensure(t, open(t), network("vx-a", peer(1)))
	for _, tt := range []struct {
		command string
		want    bool
	}{
		{"ip rule del pref 108 fwmark 0x6c6e0001", true},
		{"ip -6 rule del pref 108 fwmark 0x6c6e0001", true},
		{"ip rule del pref 107", false},
		{"ip -6 rule del pref 110", false},
		{"ip rule flush", true},
	} {
		w, err := Watch()
		if err != nil {
			t.Fatal(err)
		}
		patience := 2 * lntest.WaitForAnswer
		if !tt.want {
			patience = lntest.WaitForNone
		}
		do := func() error { return exec.Command("sh", "-c", tt.command).Run() }
		if got := lntest.Tells(t, w, do, patience); got != tt.want {
			t.Errorf("%s: told of it %t, want %t", tt.command, got, tt.want)
		}
	}
}

// sorted is a text with its lines in order: elements and routes come back in another one.
func sorted(text string) string {
	all := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == ',' || r == '{' || r == '}' })
	for i := range all {
		all[i] = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(all[i]), "elements ="))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}
