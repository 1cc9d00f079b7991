package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// Packets that another host sends are dropped, and explained, as those that lnctl sends.
func TestDropsFromOutside(t *testing.T) {
	t.Parallel()
	connect := "timeout 1 bash -c 'exec 3<>/dev/tcp/192.0.2.1/8080' 2>/dev/null"
	for _, tt := range []struct {
		drop
		sends string
	}{
		{drop{"rp_filter of the uplink", func(l *lab) {
			l.in(l.out, "ip addr add 198.51.100.7/32 dev lo")
			l.in(l.out, "ip route add 10.33.0.0/24 via 192.0.2.1 src 198.51.100.7")
			l.in(l.out, "ip neigh replace 192.0.2.1 dev eth0 lladdr", l.mac("uplink")) // to ARP this host gives no answer, either
			l.sysctl("net/ipv4/conf/uplink/rp_filter", "1")
		}, "198.51.100.7 10.33.0.2:53/udp", []string{"rp_filter drops what comes in by uplink (net.ipv4.conf.uplink.rp_filter = 1), as there is no way back to 198.51.100.7: mend the route, or set it to 2"}},
			"bash -c 'exec 3<>/dev/udp/10.33.0.2/53; echo question >&3'"},
		{drop{"forwarding off, for a published port", func(l *lab) { l.sysctl("net/ipv4/conf/uplink/forwarding", "0") }, "192.0.2.2 192.0.2.1:8080",
			[]string{"forwarding is off (net.ipv4.conf.uplink.forwarding = 0)"}}, connect},
		{drop{"the container's input, for a published port", func(l *lab) { l.foreign(netnsOf("c1"), "ip", "own", "input priority 0", "tcp dport 80 drop") }, "192.0.2.2 192.0.2.1:8080",
			[]string{"dropped at input in container c1 by the rule tcp dport 80 drop", "it is the container's own"}}, connect},
	} {
		t.Run(tt.of, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.populate()
			tt.plant(l)
			lntest.Enter(t, l.out, func() {
				cmd := exec.Command("sh", "-c", "while :; do "+tt.sends+"; sleep 0.05; done")
				l.must(cmd.Start())
				t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
			})
			out := l.lnctl(exitProblem, append([]string{"trace", "--wait", "30s"}, strings.Fields(tt.args)...)...)
			for _, want := range tt.says {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
		})
	}
}
