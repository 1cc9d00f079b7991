package nft

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// The output of "nft list ruleset", with every kind of rule and element, can be read by "nft -f",
// and it is the same again: an operator may save all rules of the host, and restore them.
func TestSavedAndRestored(t *testing.T) {
	t.Parallel()
	f := start(t)
	n, e := released()
	n.Apart, n.Trusted, n.NoHost, n.IPv6 = true, []string{"eth7"}, true, firewall.Published
	n.Tunnel, n.Spare, n.VTEPs = "vx0", "vx1", []net.HardwareAddr{{2, 0, 0, 0, 0, 2}}
	n.Underlay = firewall.Underlay{VNI: 4711, Port: 4789, Hosts: addrs("192.0.2.7", "fd20::7")}
	n.Sealed = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("fd00::/48")}
	e.MasqueradeAll, e.Source = true, addrs("192.0.2.1", "fd20::1")
	e.Ports = append(e.Ports,
		firewall.PortMap{Protocol: firewall.UDP, HostPort: 5000, HostPortEnd: 5009, ContainerPort: 5000},
		firewall.PortMap{Protocol: firewall.SCTP, HostIP: netip.MustParseAddr("192.0.2.1"), HostPort: 6000, ContainerPort: 60},
		firewall.PortMap{Protocol: firewall.TCP, HostPort: 7000, ContainerPort: 70, Sources: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}})
	mustApply(t, f, n, e)
	gated := e
	gated.Owner, gated.Bridge, gated.Addrs, gated.MAC, gated.Port = "libnet:net3/c2/eth0", "br3", addrs("10.0.0.3", "fd00::3"), net.HardwareAddr{2, 0, 0, 0, 0, 3}, "veth1"
	open := firewall.Network{Name: "libnet:net3/", Bridge: "br3"}
	gated.Ports = []firewall.PortMap{{Protocol: firewall.TCP, HostPort: 9000, HostPortEnd: 9003, ContainerPort: 90}}
	gated.ConditionsIPv4, gated.ConditionsIPv6 = words("ip saddr { 10.0.0.0/8, 192.0.2.0/24 }"), words("ip6 saddr fd00::/8 meta l4proto tcp")
	mustApply(t, f, open, gated)
	internal := firewall.Network{Name: "libnet:net2/", Bridge: "br2", Internal: true, IPv4: firewall.Routed}
	other := firewall.Endpoint{Owner: "libnet:net2/c3/eth0", Bridge: "br2", Port: "veth2", Addrs: addrs("10.2.0.2", "fd02::2"), MAC: net.HardwareAddr{2, 0, 0, 0, 0, 4}}
	mustApply(t, f, internal, other)
	nft := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("nft", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("nft %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	saved := nft("list", "ruleset")
	file := filepath.Join(t.TempDir(), "saved")
	if err := os.WriteFile(file, []byte(saved), 0o600); err != nil {
		t.Fatal(err)
	}
	nft("flush", "ruleset")
	nft("-f", file)
	words := func(text string) []string { // elements come in any order
		all := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune("\n\t,{}", r) })
		slices.Sort(all)
		return all
	}
	if diff := cmp.Diff(words(saved), words(nft("list", "ruleset"))); diff != "" {
		t.Errorf("it is not as it was saved (-saved +now):\n%s", diff)
	}
	// nft writes some rules in another form, which is ours again after the next look.
	if _, err := f.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, f, n, e)
	mustVerify(t, f, open, gated)
	mustVerify(t, f, internal, other)
}
