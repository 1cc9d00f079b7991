package iptables

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// All that is written on an empty host, in the words of iptables-restore.
func TestText(t *testing.T) {
	t.Parallel()
	n := firewall.Network{Name: "net", Bridge: "br0", IPv4: firewall.Published, IPv6: firewall.Routed, Trusted: []string{"eth1"}}
	e := firewall.Endpoint{
		Owner: "net/a/eth0", Bridge: "br0", Addrs: addrs("10.0.0.2", "fd00::2"), Masquerade: firewall.Families{IPv4: true}, Hairpin: true,
		Ports: []firewall.PortMap{{Protocol: firewall.TCP, HostPort: 8080, HostPortEnd: 8081, ContainerPort: 80}},
	}
	want := map[family]string{
		ipv4: `*raw
-N LIBNET-GUARD
-F LIBNET-GUARD
-A LIBNET-GUARD -d 127.0.0.0/8 ! -i lo -j DROP
-I PREROUTING 1 -j LIBNET-GUARD
COMMIT
*filter
-N LIBNET-USER
-N LIBNET-FORWARD
-N LIBNET-ISOLATE
-N LIBNET-INTO
-N LIBNET-OUT
-N LIBNET-APART
-N LIBNET-PORTS
-F LIBNET-FORWARD
-A LIBNET-FORWARD -j LIBNET-ISOLATE
-A LIBNET-FORWARD -j LIBNET-INTO
-A LIBNET-FORWARD -j LIBNET-OUT
-I FORWARD 1 -j LIBNET-USER
-I FORWARD 2 -j LIBNET-FORWARD
-A LIBNET-INTO -o br0 -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment net -j ACCEPT
-A LIBNET-INTO -i br0 -o br0 -m comment --comment net -j ACCEPT
-A LIBNET-INTO -o br0 -m conntrack --ctstate DNAT -m comment --comment net -j ACCEPT
-A LIBNET-INTO -i eth1 -o br0 -m comment --comment net -j LIBNET-PORTS
-A LIBNET-INTO -o br0 -m comment --comment net -j DROP
-A LIBNET-OUT -i br0 -m comment --comment net -j ACCEPT
-A LIBNET-PORTS -d 10.0.0.2/32 -p tcp -m tcp --dport 80:81 -m comment --comment net/a/eth0 -j ACCEPT
COMMIT
*nat
-N LIBNET-SNAT
-I POSTROUTING 1 -j LIBNET-SNAT
-N LIBNET-DNAT
-A PREROUTING -m addrtype --dst-type LOCAL -j LIBNET-DNAT
-A OUTPUT -m addrtype --dst-type LOCAL -j LIBNET-DNAT
-A LIBNET-SNAT -s 10.0.0.2/32 ! -d 224.0.0.0/4 ! -o br0 -m comment --comment net/a/eth0 -j MASQUERADE
-A LIBNET-DNAT -i br0 -p tcp -m tcp --dport 8080:8081 -m comment --comment net/a/eth0 -j MARK --set-xmark 0x2000/0x2000
-A LIBNET-DNAT -p tcp -m tcp --dport 8080:8081 -m comment --comment net/a/eth0 -j DNAT --to-destination 10.0.0.2:80-81/8080
-A LIBNET-SNAT -d 10.0.0.2/32 -m mark --mark 0x2000/0x2000 -m conntrack --ctstate DNAT -m comment --comment net/a/eth0 -j MASQUERADE
-A LIBNET-SNAT -s 127.0.0.0/8 -d 10.0.0.2/32 -m conntrack --ctstate DNAT -m comment --comment net/a/eth0 -j MASQUERADE
COMMIT
`,
		ipv6: `*filter
-N LIBNET-USER
-N LIBNET-FORWARD
-N LIBNET-ISOLATE
-N LIBNET-INTO
-N LIBNET-OUT
-N LIBNET-APART
-N LIBNET-PORTS
-F LIBNET-FORWARD
-A LIBNET-FORWARD -j LIBNET-ISOLATE
-A LIBNET-FORWARD -j LIBNET-INTO
-A LIBNET-FORWARD -j LIBNET-OUT
-I FORWARD 1 -j LIBNET-USER
-I FORWARD 2 -j LIBNET-FORWARD
-A LIBNET-INTO -o br0 -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment net -j ACCEPT
-A LIBNET-INTO -i br0 -o br0 -m comment --comment net -j ACCEPT
-A LIBNET-INTO -o br0 -m conntrack --ctstate DNAT -m comment --comment net -j ACCEPT
-A LIBNET-INTO -o br0 -p ipv6-icmp -m comment --comment net -j ACCEPT
-A LIBNET-INTO -o br0 -m comment --comment net -j LIBNET-PORTS
-A LIBNET-INTO -o br0 -m comment --comment net -j DROP
-A LIBNET-OUT -i br0 -m comment --comment net -j ACCEPT
-A LIBNET-PORTS -d fd00::2/128 -p tcp -m tcp --dport 80:81 -m comment --comment net/a/eth0 -j ACCEPT
COMMIT
`,
	}
	for _, f := range bothFamilies() {
		snap, err := parse(f, "")
		if err != nil {
			t.Fatal(err)
		}
		gone, added := differences(snap, plan(f, n, e), owners(n, e))
		if diff := cmp.Diff(want[f], replace(snap, gone, added)); diff != "" {
			t.Errorf("%s: %s", f.command(), diff)
		}
	}
}

func TestDestination(t *testing.T) {
	t.Parallel()
	tests := []struct {
		to          string
		first, last uint16
		container   uint16
		want        string
	}{
		{"10.0.0.2", 8080, 0, 80, "10.0.0.2:80"},
		{"10.0.0.2", 80, 80, 80, "10.0.0.2:80"},
		{"10.0.0.2", 80, 89, 80, "10.0.0.2"},
		{"10.0.0.2", 8000, 8009, 80, "10.0.0.2:80-89/8000"},
		{"fd00::2", 8080, 0, 80, "[fd00::2]:80"},
		{"fd00::2", 8000, 8009, 80, "[fd00::2]:80-89/8000"},
	}
	for _, tt := range tests {
		p := &endpointPlan{to: netip.MustParseAddr(tt.to)}
		got := p.destination(firewall.PortMap{HostPort: tt.first, HostPortEnd: tt.last, ContainerPort: tt.container})
		if got != tt.want {
			t.Errorf("%d-%d to %d: got %s, want %s", tt.first, tt.last, tt.container, got, tt.want)
		}
	}
}

func TestIncompatibleTable(t *testing.T) {
	t.Parallel()
	if _, err := parse(ipv4, "# Table `nat' is incompatible, use 'nft' tool.\n"); err == nil || !strings.Contains(err.Error(), "table nat") {
		t.Errorf("got %v", err)
	}
	if _, err := parse(ipv4, "# Table `security' is incompatible, use 'nft' tool.\n"); err != nil {
		t.Error(err)
	}
}

// sourceRanges hold for the container's own address, too.
func TestOpenSources(t *testing.T) {
	n := firewall.Network{Name: "n", Bridge: "br0", IPv4: firewall.Routed}
	e := firewall.Endpoint{Owner: "o", Bridge: "br0", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2")}, Ports: []firewall.PortMap{{
		Protocol: firewall.TCP, HostPort: 8080, ContainerPort: 80, Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
	}}}
	var got []string
	for _, r := range endpointRules(ipv4, n, e) {
		got = append(got, r.line("-A"))
	}
	want := []string{"-A LIBNET-PORTS -s 192.0.2.0/24 -d 10.0.0.2/32 -p tcp -m tcp --dport 80 -m comment --comment o -j ACCEPT"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "a b", `a"b\`, "a'b", "\t"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, word string) {
		if strings.ContainsAny(word, "\n\x00") {
			t.Skip()
		}
		r := rule{"nat", "X", []string{word, "-j", "Y"}}
		if diff := cmp.Diff(append([]string{"-A", "X"}, r.args...), split(r.line("-A"))); diff != "" {
			t.Error(diff)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("*nat\n:X - [0:0]\n-A X -m comment --comment \"a b\" -j DNAT --to-destination 10.0.0.1\nCOMMIT\n")
	f.Fuzz(func(_ *testing.T, text string) {
		snap, err := parse(ipv4, text)
		if err == nil {
			replace(snap, snap.owned(), nil)
			_, _ = checkHeld(snap, "", "", snap.owned())
		}
	})
}
