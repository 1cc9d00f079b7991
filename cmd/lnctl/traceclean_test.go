package main

import (
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// Where nothing is wrong, trace finds nothing: on all ways of a host, beside other programs that let
// packets through.
func TestTraceFindsNoDrop(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.populate()
	l.populateModes()
	l.serve("c1", "80")
	l.serve("c2", "80")
	lntest.Enter(t, l.out, func() {
		l.in("", "ip addr add fd99::2/64 dev eth0 nodad")
		for _, way := range []string{"10.32.0.0/16 via 192.0.2.1", "10.33.0.0/24 via 192.0.2.1", "10.37.0.0/24 via 192.0.2.1"} {
			l.in("", "ip route add "+way)
		}
		silent, err := net.ListenPacket("udp4", "192.0.2.2:53")
		l.must(err)
		t.Cleanup(func() { _ = silent.Close() })
	})
	lntest.Enter(t, netnsOf("c3"), func() { // takes, and answers nothing
		silent, err := net.ListenPacket("udp4", ":53")
		l.must(err)
		t.Cleanup(func() { _ = silent.Close() })
	})
	l.in("", "ip addr add fd99::1/64 dev uplink nodad")
	for _, path := range []string{"net/ipv4/conf/all/rp_filter", "net/ipv4/conf/ln1/rp_filter"} {
		l.sysctl(path, "2")
	}
	l.in("", "iptables-legacy -P FORWARD ACCEPT")
	l.in("", "iptables-legacy -A INPUT -p tcp --dport 9 -j DROP")
	l.in("", "ip route add blackhole 198.51.100.0/24")
	end := l.hostEnd("c2")
	l.in("", "tc qdisc add dev "+end+" clsact")
	l.foreign("", "netdev", "early", "ingress device "+end+" priority 0", "ip daddr 198.51.100.1 drop")
	l.foreign("", "bridge", "frames", "prerouting priority -500", "ip saddr 10.33.0.99 drop")
	for _, hook := range []string{"prerouting", "input", "forward", "output", "postrouting"} {
		l.foreign("", "inet", "at"+hook, hook+" priority 5", "ip daddr 198.51.100.1 drop", "accept")
	}
	for args, want := range map[string]string{
		"c2 192.0.2.2":              "192.0.2.2 answers the echo",
		"c2 192.0.2.2 --size 1400":  "192.0.2.2 answers the echo",
		"c2 192.0.2.1":              "192.0.2.1 answers the echo",
		"c1 192.0.2.2":              "192.0.2.2 answers the echo",
		"c1 fd99::2":                "fd99::2 answers the echo",
		"c1 c2":                     "10.33.0.2 answers the echo",
		"c2 c3":                     "10.33.0.3 answers the echo",
		"c9 192.0.2.2":              "192.0.2.2 answers the echo",
		"d1 192.0.2.1":              "192.0.2.1 answers the echo",
		"host c2":                   "10.33.0.2 answers the echo",
		"host c2:80":                "the connection was accepted",
		"host c6":                   "10.35.0.2 answers the echo",
		"host 192.0.2.1:8080":       "the connection was accepted",
		"c2 192.0.2.1:8080":         "the connection was accepted",
		"c1 192.0.2.1:8080":         "the connection was accepted",
		"host 127.0.0.1:8080":       "the connection was accepted",
		"c2 c3:53/udp --wait 500ms": "it came into container c3",
		"c2 c3:99":                  "the port is closed: nothing listens on port 99 of container c3",
		"c2 c3:99/udp":              "the port is closed: nothing listens on port 99 of container c3",
		"c2 192.0.2.2:99":           "the port is closed: nothing listens there",
		"c2 192.0.2.1:99":           "the port is closed: nothing listens there",
		"c5 10.34.0.1":              "10.34.0.1 answers the echo",
	} {
		out := l.lnctl(exitOK, append([]string{"trace"}, strings.Fields(args)...)...)
		if !strings.Contains(out, "✓ arrived: "+want) {
			t.Errorf("trace %s: want %q in\n%s", args, want, out)
		}
	}
	for _, netns := range []string{"", netnsOf("c1"), netnsOf("c2"), netnsOf("c3")} {
		list := []string{"nft", "list", "tables"}
		if netns != "" {
			list = append([]string{"nsenter", "--net=" + netns}, list...)
		}
		var tables []byte
		if !lntest.Await(lntest.WaitForAnswer, func() (gone bool) {
			var err error
			tables, err = exec.Command(list[0], list[1:]...).Output()
			return err == nil && !strings.Contains(string(tables), "libnet-trace")
		}) {
			t.Errorf("left in %q: %s", netns, tables)
		}
	}
}
