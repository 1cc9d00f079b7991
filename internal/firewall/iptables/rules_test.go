package iptables

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// sample returns network and endpoint number i with every kind of rule.
func sample(i int) (firewall.Network, firewall.Endpoint) {
	br := fmt.Sprintf("br%d", i)
	n := firewall.Network{
		Name: fmt.Sprintf("net %d", i), Bridge: br, Internal: true, NoICC: true, Apart: true,
		IPv4: firewall.Published, IPv6: firewall.Published, Trusted: []string{"eth1", "eth2"},
		AcceptMark: &firewall.Mark{Value: 0x10, Mask: 0xf0},
	}
	base := uint16(1000 * i)
	return n, firewall.Endpoint{
		Owner: fmt.Sprintf(`net%d/c%d/eth0\'`, i, i), Bridge: br, Port: fmt.Sprintf("veth%d", i),
		Addrs: []netip.Addr{
			netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}),
			netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(i >> 8), 15: byte(i)}),
		},
		Masquerade: firewall.Families{IPv4: true, IPv6: true}, Source: addrs("192.0.2.7"), Hairpin: true,
		Ports: []firewall.PortMap{
			port(firewall.TCP, "", base), port(firewall.SCTP, "192.0.2.7", base), port(firewall.UDP, "fd20::1", base),
			{Protocol: firewall.UDP, HostPort: base + 100, HostPortEnd: base + 109, ContainerPort: 500},
			{Protocol: firewall.UDP, HostPort: base + 200, HostPortEnd: base + 209, ContainerPort: base + 200,
				Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("fd20::/64")}},
		},
		ConditionsIPv4: []string{"!", "-d", "192.0.2.33", "-i", "eth+"}, ConditionsIPv6: []string{"-m", "limit", "--limit", "9/sec"},
		IPTables: &firewall.IPTablesOptions{MarkBit: 5},
	}
}

// plain is sample without conditions.
func plain(i int) (firewall.Network, firewall.Endpoint) {
	n, e := sample(i)
	e.ConditionsIPv4, e.ConditionsIPv6, e.IPTables = nil, nil, nil
	return n, e
}

func wantOwners(t testing.TB, f *Firewall, want ...string) {
	t.Helper()
	got, err := f.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("owners: %s", diff)
	}
}

// foreign puts rules of others in place, of both families.
func foreign(t testing.TB) {
	for _, name := range []string{"iptables", "ip6tables"} {
		for _, rule := range []string{
			"-P FORWARD DROP", "-A FORWARD -i eth9 -j ACCEPT", "-t nat -N KUBE-SERVICES", "-t nat -A PREROUTING -j KUBE-SERVICES",
			"-t nat -A OUTPUT -j KUBE-SERVICES", "-t nat -A POSTROUTING -o eth9 -j MASQUERADE",
			"-t raw -A PREROUTING -i eth9 -j DROP", "-t mangle -A FORWARD -j MARK --set-mark 7",
		} {
			runTool(t, append([]string{name}, strings.Fields(rule)...)...)
		}
	}
}

// equalAfter runs fn and wants the ruleset to be byte for byte what it was.
func equalAfter(t *testing.T, fn func()) {
	t.Helper()
	before := ruleset(t)
	fn()
	if diff := cmp.Diff(before, ruleset(t)); diff != "" {
		t.Errorf("ruleset is another: %s", diff)
	}
}

func TestNothingStays(t *testing.T) {
	t.Parallel()
	for _, others := range []bool{false, true} {
		t.Run(fmt.Sprintf("others %v", others), func(t *testing.T) {
			t.Parallel()
			f := isolate(t)
			if others {
				foreign(t)
			}
			equalAfter(t, func() { roundTrip(t, f) })
		})
	}
}

// roundTrip applies and removes two networks and three endpoints.
func roundTrip(t *testing.T, f *Firewall) {
	n1, e1 := sample(1)
	n2, e2 := plain(2)
	n2.IPv4, n2.IPv6, n2.Internal = firewall.Routed, firewall.Open, false
	alone := firewall.Endpoint{Owner: "alone", Addrs: addrs("10.9.0.1"), Ports: tcpAndUDP("", 9000)}
	equalAfter(t, func() {
		mustRemove(t, f, n1, e1, alone)
		wantOwners(t, f)
	})
	mustApply(t, f, firewall.Network{}, firewall.Endpoint{})
	mustApply(t, f, n1, e1)
	mustApply(t, f, firewall.Network{}, alone)
	equalAfter(t, func() {
		mustApply(t, f, n2, e2)
		wantOwners(t, f, "alone", e1.Owner, e2.Owner)
		mustRemove(t, f, n2, e2)
	})
	if err := f.Verify(t.Context(), n1, e1); err != nil {
		t.Error(err)
	}
	mustRemove(t, f, n1, e1)
	if text := ruleset(t); strings.Contains(text, chainForward) || !strings.Contains(text, chainDNAT) || !strings.Contains(text, chainGuard) {
		t.Errorf("only what published ports need was to stay: %s", text)
	}
	for range 2 {
		mustRemove(t, f, firewall.Network{}, alone)
	}
}

// The same with the tools that use no nf_tables. It sets the environment of
// the process, so it runs by itself.
func TestLegacy(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"iptables", "ip6tables"} {
		for _, suffix := range []string{"", "-save", "-restore"} {
			path, err := exec.LookPath(name + "-legacy" + suffix)
			if err != nil {
				t.Skip(err)
			}
			if err := os.Symlink(path, filepath.Join(dir, name+suffix)); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	f := isolate(t)
	if out, err := exec.Command("iptables", "-t", "nat", "-S").CombinedOutput(); err != nil {
		t.Skipf("%v: %s", err, out) // the kernel has nf_tables only
	}
	if out := runTool(t, "iptables", "--version"); !strings.Contains(out, "legacy") {
		t.Fatal(out)
	}
	foreign(t)
	equalAfter(t, func() { roundTrip(t, f) })
}

func TestTwiceIsOnce(t *testing.T) {
	t.Parallel()
	f := isolate(t)
	if err := f.Available(); err != nil {
		t.Fatal(err)
	}
	foreign(t)
	for _, make := range []func(int) (firewall.Network, firewall.Endpoint){sample, plain} {
		n, e := make(1)
		mustApply(t, f, n, e)
		equalAfter(t, func() { mustApply(t, f, n, e) })
	}
	_, e := plain(1)
	snap, err := save(t.Context(), ipv4)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := plain(1)
	gone, added := differences(snap, plan(ipv4, n, e), owners(n, e))
	if text := replace(snap, gone, added); text != "" {
		t.Errorf("writes the same anew: %s", text)
	}
}

// Apply removes rules that an endpoint or network had before and has no more.
func TestApplyChanges(t *testing.T) {
	t.Parallel()
	f := isolate(t)
	n, e := plain(1)
	mustApply(t, f, n, e)
	n.Internal, n.NoICC, n.Apart, n.IPv4 = false, false, false, firewall.Open
	e.Ports = e.Ports[:1]
	e.Ports[0].ContainerPort++
	mustApply(t, f, n, e)
	want := func() string { // as on a host where nothing was before
		mustRemove(t, f, n, e)
		mustApply(t, f, n, e)
		return ruleset(t)
	}
	if diff := cmp.Diff(ruleset(t), want()); diff != "" {
		t.Error(diff)
	}
}

func TestOneFamilyOnly(t *testing.T) {
	t.Parallel()
	f := isolate(t)
	n, e := plain(1)
	for i, other := range []string{"ip6tables-save", "iptables-save"} {
		one := e
		one.Addrs = e.Addrs[i : i+1]
		mustApply(t, f, n, one)
		if out := runTool(t, other); strings.Contains(out, "LIBNET") {
			t.Errorf("%s: %s", other, out)
		}
		n.Internal = !n.Internal
		if err := f.ApplyNetwork(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		if out := runTool(t, other); strings.Contains(out, "LIBNET") {
			t.Errorf("%s after a change of the network: %s", other, out)
		}
		if err := f.Verify(t.Context(), n, one); err != nil {
			t.Error(err)
		}
		mustRemove(t, f, n, one)
	}
	if err := f.ApplyNetwork(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if err := f.Verify(t.Context(), n, firewall.Endpoint{}); err != nil {
		t.Errorf("a network alone: %v", err)
	}
	mustRemove(t, f, n)
}

func TestUserChain(t *testing.T) {
	t.Parallel()
	f := isolate(t)
	n, e := plain(1)
	mustApply(t, f, n, e)
	runTool(t, "iptables", "-A", chainUser, "-s", "192.0.2.66", "-j", "DROP")
	runTool(t, "iptables", "-I", "FORWARD", "-i", "eth9", "-j", "ACCEPT")
	mustRemove(t, f, n, e)
	if diff := cmp.Diff("-P FORWARD ACCEPT\n-A FORWARD -i eth9 -j ACCEPT\n-A FORWARD -j LIBNET-USER\n", runTool(t, "iptables", "-S", "FORWARD")); diff != "" {
		t.Error(diff)
	}
	mustApply(t, f, n, e)
	want := "-P FORWARD ACCEPT\n-A FORWARD -i eth9 -j ACCEPT\n-A FORWARD -j LIBNET-USER\n-A FORWARD -j LIBNET-FORWARD\n"
	if diff := cmp.Diff(want, runTool(t, "iptables", "-S", "FORWARD")); diff != "" {
		t.Error(diff)
	}
	runTool(t, "iptables", "-F", chainUser)
	mustRemove(t, f, n, e)
	if out := runTool(t, "iptables-save"); strings.Contains(out, "LIBNET") {
		t.Error(out)
	}
}

// The first Apply after a flush hears of it.
func TestRestored(t *testing.T) {
	t.Parallel()
	f := isolate(t)
	want := func(want bool, i int) {
		t.Helper()
		n, e := plain(i)
		got, err := f.Apply(t.Context(), n, e)
		if err != nil || got != want {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
	want(true, 1)
	want(false, 2)
	want(false, 1)
	for _, table := range []string{"filter", "nat", "raw"} {
		runTool(t, "iptables", "-t", table, "-F")
		runTool(t, "iptables", "-t", table, "-X")
	}
	want(true, 2)
	want(false, 1)
}

// Many rules of one chain go at once, and those of others keep their order.
func TestRemoveMany(t *testing.T) {
	t.Parallel()
	f := isolate(t)
	_, before := plain(1)
	_, e := plain(2)
	_, after := plain(3)
	e.Ports = nil
	for i := range uint16(2 * many) {
		e.Ports = append(e.Ports, port(firewall.TCP, "", 20000+i))
	}
	mustApply(t, f, firewall.Network{}, before)
	mustApply(t, f, firewall.Network{}, after)
	equalAfter(t, func() {
		mustRemove(t, f, firewall.Network{}, after)
		mustApply(t, f, firewall.Network{}, e)
		mustApply(t, f, firewall.Network{}, after)
		mustRemove(t, f, firewall.Network{}, e)
	})
	mustRemove(t, f, firewall.Network{}, before, after)
}
