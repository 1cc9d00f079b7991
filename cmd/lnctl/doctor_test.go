package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/pkg/libnet"
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
		"firewalld": {
			func(l *lab) {
				l.nft("table inet firewalld {\n chain filter_FORWARD {\n type filter hook forward priority 10; policy accept;\n reject with icmpx type admin-prohibited\n }\n}\n", "-f", "-")
			},
			[]string{"other firewalls"}, []string{"last rule reject; no rule of it names ln0, ln1", "firewall-cmd --permanent --zone=trusted --add-interface=ln0"},
		},
		"rules": {
			func(l *lab) { l.nft("", "delete", "table", "inet", "libnet") },
			[]string{"attachments", "portmap ports"}, []string{"3 of 3 differ", "1 of 1 differ", "lnctl repair"},
		},
		"bridge": {
			func(l *lab) { l.must(netlink.LinkDel(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "ln0"}})) },
			[]string{"bridges", "attachments"}, []string{`network "web": bridge ln0: `, "1 of 3 differ"},
		},
		"unreadable record": {
			func(l *lab) { l.must(os.WriteFile(endpoints+"c1:eth0.json", []byte("{"), 0o600)) },
			[]string{"records"}, []string{"1 cannot be read and are set aside: " + endpoints + "c1:eth0.json.corrupt"},
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
			[]string{"dead attachments"}, []string{`1, one: c1 eth0 in network "web"`, "lnctl gc"},
		},
		"full pool": {
			func(l *lab) { l.attach(l.network("small", libnet.NetworkConfig{Bridge: "ln2"}, "10.34.0.0/30"), "c5") },
			[]string{"address pool"}, []string{`network "small": `, "10.34.0.0/30"},
		},
		"nearly full pool": {
			func(l *lab) {
				n := l.network("small", libnet.NetworkConfig{Bridge: "ln2"}, "10.34.0.0/28")
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
