package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/model"
)

// Each defect is found under its name and no other, with what to do about it.
func TestDoctor(t *testing.T) {
	t.Parallel()
	const endpoints = "/run/libnet/networks/web/endpoints/"
	for name, tt := range map[string]struct {
		harm func(*lab)
		want []string // what is wrong
		says []string
	}{
		"nothing": {func(*lab) {}, nil, []string{"✓ attachments       3, as they were made", "✓ portmap ports     1, as they were made"}},
		"IPv4 forwarding": {
			func(l *lab) { l.sysctl("net/ipv4/ip_forward", "0") },
			[]string{"forwarding IPv4"}, []string{"off; needed by network plain, web", "sysctl -w net.ipv4.ip_forward=1"},
		},
		"IPv6 forwarding": {
			func(l *lab) { l.sysctl("net/ipv6/conf/all/forwarding", "0") },
			[]string{"forwarding IPv6"}, []string{"off; needed by network web", "sysctl -w net.ipv6.conf.all.forwarding=1"},
		},
		"policy drop": {
			func(l *lab) {
				l.nft("table ip filter {\n chain FORWARD {\n type filter hook forward priority 0; policy drop;\n iifname \"ln0\" accept\n }\n}\n", "-f", "-")
			},
			[]string{"other firewalls"},
			[]string{"table ip filter, chain FORWARD: policy drop; no rule of it names ln1", "iptables -I FORWARD -i ln1 -j ACCEPT", "✓ br_netfilter"},
		},
		"policy drop with rules for us": {
			func(l *lab) {
				l.nft("table ip filter {\n chain FORWARD {\n type filter hook forward priority 0; policy drop;\n iifname \"ln0\" accept\n iifname \"ln1\" accept\n }\n}\n", "-f", "-")
			},
			nil, []string{"table ip filter, chain FORWARD: policy drop; it has rules for ln0, ln1"},
		},
		"a rule that is not understood": {
			func(l *lab) {
				l.nft("table ip other {\n chain f {\n type filter hook forward priority 0; policy accept;\n ip saddr & 0.0.0.255 != 0.0.0.9 drop\n }\n}\n", "-f", "-")
			},
			nil, []string{`✓ other firewalls   could not judge rule "handle 2" of chain f in table ip other: it asks for single bits of an address`},
		},
		"firewalld": {
			func(l *lab) {
				l.nft("table inet firewalld {\n chain filter_FORWARD {\n type filter hook forward priority 10; policy accept;\n reject with icmpx type admin-prohibited\n }\n}\n", "-f", "-")
			},
			[]string{"other firewalls"}, []string{"last rule reject; no rule of it names ln0, ln1", "firewall-cmd --permanent --zone=trusted --add-interface=ln0"},
		},
		"rules": {
			func(l *lab) { l.nft("", "delete", "table", "inet", "libnet") },
			[]string{"rules", "attachments", "portmap ports"}, []string{"table inet libnet: missing", "c2 eth0", "c3 eth0", "c1 eth0", "lnctl repair"},
		},
		"bridge": {
			func(l *lab) { l.must(netlink.LinkDel(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "ln0"}})) },
			[]string{"bridges", "attachments"}, []string{`network "web": bridge ln0: `, "c1 eth0", "lnctl repair makes it anew"},
		},
		"unreadable record": {
			func(l *lab) { l.must(os.WriteFile(endpoints+"c1:eth0.json", []byte("{"), 0o600)) },
			[]string{"records", "lost records"}, []string{"1 cannot be read and are set aside: " + endpoints + "c1:eth0.json.corrupt"},
		},
		"changed rule": {
			func(l *lab) {
				l.nft("flush chain inet libnet direct\nadd rule inet libnet direct accept comment \"open4\"\n", "-f", "-")
			},
			[]string{"rules", "attachments", "portmap ports"}, []string{`rules of table inet libnet, as this release writes them: missing`},
		},
		"lost record": {
			func(l *lab) { l.must(os.Remove(endpoints + "c1:eth0.json")) },
			[]string{"lost records"}, []string{`c1 eth0 in network "web" has a link (veth`, "lnctl repair writes it"},
		},
		"lost network": {
			func(l *lab) { l.must(os.Remove("/run/libnet/networks/web/network.json")) },
			[]string{"lost records"}, []string{`network "web" has containers and no record`},
		},
		"lost state": {
			func(l *lab) { l.must(os.RemoveAll("/run/libnet")) },
			[]string{"lost records"}, []string{"not there yet", `c2 eth0 in network "plain"`, `network "plain" has containers`},
		},
		"left lease": {
			func(l *lab) {
				l.must(os.WriteFile("/var/lib/cni/networks/web/10.32.0.77", []byte("dead1\r\neth0"), 0o600))
			},
			[]string{"left leases"}, []string{`10.32.0.77 of network "web" is held for dead1 eth0`, "rm /var/lib/cni/networks/web/10.32.0.77"},
		},
		"left link": {
			func(l *lab) {
				l.must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "vethdeadbeef"}, PeerName: "other"}))
				link, err := netlink.LinkByName("vethdeadbeef")
				l.must(err)
				l.must(netlink.LinkSetAlias(link, "libnet:web/gone/eth0"))
			},
			[]string{"left links", "bridges"}, []string{"vethdeadbeef carries the alias of gone eth0", "ip link del vethdeadbeef"},
		},
		"read-only state": {
			func(l *lab) {
				l.must(unix.Mount("/run/libnet", "/run/libnet", "", unix.MS_BIND, ""))
				l.must(unix.Mount("", "/run/libnet", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
			},
			[]string{"state directory"}, []string{"/run/libnet: read-only file system"},
		},
		"dead": {
			func(l *lab) { l.kill("c1") },
			[]string{"dead attachments"}, []string{`c1 eth0 in network "web"`, "lnctl gc"},
		},
		"full pool": {
			func(l *lab) { l.attach(l.network("small", model.NetworkConfig{Bridge: "ln2"}, "10.34.0.0/30"), "c5") },
			[]string{"address pool"}, []string{`network "small": `, "10.34.0.0/30"},
		},
		"nearly full pool": {
			func(l *lab) {
				n := l.network("small", model.NetworkConfig{Bridge: "ln2"}, "10.34.0.0/28")
				for i := range 12 { // of 13
					_, err := n.CreateEndpoint(context.Background(), fmt.Sprint("e", i))
					l.must(err)
				}
			},
			[]string{"address pool"}, []string{`network "small": range set 0 (10.34.0.0/28): 12 of 13 addresses are held`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.populate()
			l.lnctl(exitOK, "gc")
			tt.harm(l)
			out := l.failing(tt.want...)
			for _, want := range tt.says {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
		})
	}
}
