package integration

import (
	"fmt"
	"os/exec"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// Packets of a flow that has come through go past the host's bridge, in both families, and
// those of TCP arrive whole; with br_netfilter and without. Without the key none do.
func TestFastPath(t *testing.T) {
	for _, netfilter := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables="+netfilter, func(t *testing.T) {
			l := newFastLab(t, keys{"fastPath": "auto", "gatewayMode": "nat"})
			l.netfilter(netfilter)
			a, b := l.join("a", nil), l.join("b", nil)
			for _, to := range b.addresses {
				l.count()
				l.talk(a, to).whole(500)
				if slow := l.counted(); slow > 150 {
					t.Errorf("to %s: %d of 1000 datagrams went by the bridge", to, slow)
				}
				if err := l.transfer(a, b, to); err != nil {
					t.Errorf("TCP to %s: %v", to, err)
				}
			}
			l.must(a.call.as("DEL"))
			a = l.join("off", keys{"fastPath": "off"})
			l.count()
			l.talk(a, b.addresses[0]).whole(500)
			if slow := l.counted(); slow < 1000 {
				t.Errorf("off: %d of 1000 datagrams went by the bridge", slow)
			}
		})
	}
}

// A change of rules counts with the next packet of a flow.
func TestFastPathRulesChange(t *testing.T) {
	l := newFastLab(t, keys{"fastPath": "auto", "isDefaultGateway": true})
	l.netfilter("1")
	a, b := l.join("a", nil), l.join("b", nil)
	talk := l.talk(a, b.addresses[0])
	talk.whole(200)
	l.netns("c")
	closed := attachment("bridge-ln", "c", netnsPath("c"), edit(t, l.conf, keys{
		"name": "closed", "icc": false, "fastPath": "off", "ipam": rawJSON(`{"type":"ipam-ln","subnet":"10.72.0.0/24"}`),
	}))
	for range 5 {
		l.must(closed.as("ADD"))
		talk.silent("after ADD of a container that closes the bridge", 20)
		l.must(closed.as("DEL"))
		talk.whole(200)
	}
}

// A change that others make counts after a second.
func TestFastPathOthersChange(t *testing.T) {
	for _, tt := range []struct{ what, close, open string }{
		{"a rule of a bridge", "add rule bridge admin forward drop", "flush chain bridge admin forward"},
		{"a rule of packets", "add rule inet admin forward drop", "flush chain inet admin forward"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			l := newFastLab(t, keys{"fastPath": "auto", "isDefaultGateway": true})
			l.netfilter("1")
			a, b := l.join("a", nil), l.join("b", nil)
			for _, family := range []string{"bridge", "inet"} {
				l.nft("add table " + family + " admin; add chain " + family + " admin forward { type filter hook forward priority 0; }")
			}
			talk := l.talk(a, b.addresses[0])
			talk.whole(200)
			l.nft(tt.close)
			talk.goOn()
			talk.silent("after the change", 20)
			l.nft(tt.open)
			talk.whole(200)
		})
	}
}

// A queue on the way out to a container counts with the next packet, as the plugin bandwidth makes
// it.
func TestFastPathQueue(t *testing.T) {
	l := newFastLab(t, keys{"fastPath": "auto", "gatewayMode": "nat"})
	a := l.join("a", nil)
	before := l.ports()
	b := l.join("b", nil)
	port := l.ports()[slices.IndexFunc(l.ports(), func(p string) bool { return !slices.Contains(before, p) })]
	talk := l.talk(a, b.addresses[0])
	talk.whole(200)
	l.exec("tc", "qdisc", "add", "dev", port, "root", "tbf", "rate", "8kbit", "burst", "20", "latency", "1ms") // no datagram is so short
	talk.silent("behind a queue that lets nothing through", 20)
	l.exec("tc", "qdisc", "del", "dev", port, "root")
	l.count()
	talk.whole(200)
	if slow := l.counted(); slow > 60 {
		t.Errorf("without the queue: %d of 400 datagrams went by the bridge", slow)
	}
}

// A container of which the runtime says that its bandwidth is limited is not on the fast path, and
// its link is free for the qdisc ingress of the plugin bandwidth. The others stay on it.
func TestFastPathBandwidth(t *testing.T) {
	l := newFastLab(t, keys{"fastPath": "auto", "gatewayMode": "nat", "capabilities": rawJSON(`{"bandwidth":true}`)})
	a, b := l.join("a", nil), l.join("b", keys{"runtimeConfig": rawJSON(`{"bandwidth":{"ingressRate":0,"egressRate":0}}`)})
	before := l.ports()
	limited := l.join("limited", keys{"runtimeConfig": rawJSON(`{"bandwidth":{"egressRate":1000000,"egressBurst":1000000}}`)})
	port := l.ports()[slices.IndexFunc(l.ports(), func(p string) bool { return !slices.Contains(before, p) })]
	l.exec("tc", "qdisc", "add", "dev", port, "ingress")
	for to, least := range map[*fastEnd]int{b: 0, limited: 1000} {
		l.count()
		l.talk(a, to.addresses[0]).whole(500)
		if slow := l.counted(); slow < least || least == 0 && slow > 150 {
			t.Errorf("%d of 1000 datagrams went by the bridge, want %d or few", slow, least)
		}
		l.must(to.call.as("CHECK"))
	}
}

// A container that takes another one's names for its own has nothing of that one's flows.
func TestFastPathForged(t *testing.T) {
	l := newFastLab(t, keys{"fastPath": "auto", "isDefaultGateway": true, "macspoofchk": true})
	a, b, c := l.join("a", nil), l.join("b", nil), l.join("c", nil)
	talk := l.talk(a, b.addresses[0])
	talk.whole(200)
	forged := l.forge(a, c, b.addresses[0], talk.port())
	for range 50 {
		forged()
	}
	talk.whole(50)
	if n := b.heard("forged"); n > 0 {
		t.Errorf("%d frames in the name of a arrived", n)
	}
	l.setMAC(a, "02:00:00:00:00:99")
	talk.silent("after a took another MAC address", 20)
}

// Without pins, without filters, and after all was put back, no datagram is lost. CHECK says
// what is missing; ADD again puts it back, and so does repair.
func TestFastPathLost(t *testing.T) {
	for _, tt := range []struct {
		what string
		lose func(*fastLab)
	}{
		{"pins", func(l *fastLab) { l.check(removePins()) }},
		{"bpffs", func(l *fastLab) { l.check(unmountPins()) }},
		{"filters", func(l *fastLab) {
			for _, port := range l.ports() {
				l.check(exec.Command("tc", "qdisc", "del", "dev", port, "clsact").Run())
			}
		}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			l := newFastLab(t, keys{"fastPath": "auto", "gatewayMode": "nat"})
			a, b := l.join("a", nil), l.join("b", nil)
			talk := l.talk(a, b.addresses[0])
			talk.whole(200)
			tt.lose(l)
			talk.whole(200)
			if r := l.run(a.call.as("CHECK")); r.code == 0 {
				t.Error("CHECK finds nothing")
			}
			talk.whole(200)
			l.must(a.call.as("ADD"))
			l.exec(program(t, "lnctl"), "repair")
			talk.whole(200)
			l.must(a.call.as("CHECK"))
			l.must(b.call.as("CHECK"))
			l.count()
			talk.whole(500)
			if slow := l.counted(); slow > 150 {
				t.Errorf("put back: %d of 1000 datagrams went by the bridge", slow)
			}
			l.must(a.call.as("DEL"))
			l.must(b.call.as("DEL"))
			l.noPins()
		})
	}
}

// An address that another container has now gets none of the datagrams that were for the
// first one once ADD has returned, but its own.
func TestFastPathAddressAgain(t *testing.T) {
	l := newFastLab(t, keys{"fastPath": "auto", "isDefaultGateway": true})
	a := l.join("a", nil)
	one := keys{"runtimeConfig.ips": []string{"10.71.0.50/24"}, "capabilities.ips": true}
	for i := range 5 {
		name := fmt.Sprint("b", i)
		b := l.join(name, one)
		talk := l.talk(a, b.addresses[0])
		talk.whole(100)
		l.must(b.call.as("DEL"))
		talk.silent("after DEL", 5)
	}
}

// Between hosts packets go past the bridges, routes and rules of both for what is inside the
// tunnel. What comes from a host that the network has no more is dropped.
func TestFastPathOverlay(t *testing.T) {
	for _, is6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("underneath6=%t", is6), func(t *testing.T) {
			lntest.NeedsRoot(t, "loads BPF programs")
			c := newCluster(t, 2, 1500, is6)
			auto := keys{"fastPath": "auto"}
			l := &fastLab{host: c.host}
			a, b := l.serve(c.add(0, "h1", auto)), l.serve(c.add(0, "h2", auto))
			for _, to := range b.addresses {
				l.countIn("h1", "h2")
				l.talk(a, to).whole(500)
				if slow := l.countedIn("h1", "h2"); slow > 300 {
					t.Errorf("to %s: datagrams were forwarded %d times in 2000", to, slow)
				}
				if err := l.transfer(a, b, to); err != nil {
					t.Errorf("TCP to %s: %v", to, err)
				}
			}
			talk := l.talk(a, b.addresses[0])
			talk.whole(100)
			for _, h := range c.hosts { // others close the way
				c.in(netnsPath(h), func() { l.nft("add rule inet admin forward drop") })
				talk.goOn()
				talk.silent("closed by a rule of "+h, 20)
				c.in(netnsPath(h), func() { l.nft("flush chain inet admin forward") })
				talk.whole(100)
			}
			c.in(netnsPath("h2"), func() { // the tunnel goes, and comes again
				d, err := netlink.LinkByName(c.tunnelOf("h2"))
				c.check(err)
				c.check(netlink.LinkDel(d))
			})
			talk.goOn()
			talk.silent("without the tunnel", 5)
			c.in(netnsPath("h2"), func() { c.exec(program(t, "lnctl"), "--state-dir", "/run/libnet-h2", "repair") })
			talk.whole(100)
		})
	}
}
