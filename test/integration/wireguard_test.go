package integration

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/wireguard"
)

// Every container of three hosts reaches every other by both families, and what passes the
// link between the hosts shows neither payload nor VXLAN. A network beside it that is not
// encrypted shows both: so the capture would tell.
func TestWireGuardReach(t *testing.T) {
	for _, is6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("underlay6=%t", is6), func(t *testing.T) {
			t.Parallel()
			s := newSecure(t, 3, is6)
			c := s.capture()
			all := s.all()
			heard := s.ear(all[1])
			s.reachAll(all)
			s.shout(all[0], all[1:]...)
			if !heard(agentPatience) {
				t.Error("the payload did not arrive")
			}
			if got := c.sealed("all is well"); got.wireguard == 0 {
				t.Errorf("%d frames, none of WireGuard: the capture sees nothing", got.all)
			}
			for _, host := range s.hosts { // hosts reach all, for probes
				for _, to := range all {
					for _, a := range to.addresses {
						s.ping(netnsPath(host), a)
					}
				}
				if r := s.status(host, s.hosts); r.code != 0 {
					t.Errorf("STATUS on %s: %d %s", host, r.code, r.msg)
				}
			}
			for _, p := range all {
				r := s.mustOn(p.host, p.call.as("ADD"))
				check := p.call.as("CHECK")
				check.stdin = edit(t, check.stdin, map[string]any{"prevResult": decode(t, r.stdout)})
				s.mustOn(p.host, check)
			}
			want := pick2(is6, "1420", "1440")
			s.in(all[0].netns, func() {
				if got := fmt.Sprint(s.link("eth0").Attrs().MTU); got != want {
					t.Errorf("MTU is %s, want %s", got, want)
				}
			})
			out, _ := s.lnctl(0, "overlay", "check", "net0")
			if got := row(out, s.address(1).String(), "10.80.1.0/24"); !strings.Contains(got, "present - present") || !strings.HasSuffix(got, "ms "+want) {
				t.Errorf("overlay check: %q in\n%s", got, out)
			}
			plain := []container{s.add(1, "h1", nil), s.add(1, "h2", nil)}
			s.ping(plain[0].netns, plain[1].addresses[0])
			s.shout(plain[0], plain[1])
			if got := c.read(); got.marked == 0 || got.vxlan == 0 {
				t.Errorf("of a network that is not encrypted %d frames show the payload and %d VXLAN, want some", got.marked, got.vxlan)
			}
		})
	}
}

// Whatever is taken from an encrypted network by hand: nothing of it leaves in clear, and
// STATUS puts it back.
func TestWireGuardFailsClosed(t *testing.T) {
	for name, harm := range map[string]func(s *secure){
		"device deleted": func(s *secure) { s.deleteDevice() },
		"device down":    func(s *secure) { s.check(netlink.LinkSetDown(s.link(s.deviceOf("h1")))) },
		"route deleted":  func(s *secure) { s.deleteRoutes(unix.RTN_UNICAST) },
		"unreachable routes deleted": func(s *secure) {
			s.deleteRoutes(unix.RTN_UNREACHABLE)
		},
		"all routes deleted, and others lead past the tunnel": func(s *secure) {
			s.deleteRoutes(unix.RTN_UNICAST)
			s.deleteRoutes(unix.RTN_UNREACHABLE)
			s.pastTheTunnel()
		},
		"device deleted, and routes lead past it": func(s *secure) {
			s.deleteDevice()
			s.pastTheTunnel()
		},
		"peers removed": func(s *secure) { s.takePeers() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSecure(t, 2, false)
			all := s.all()
			s.reachAll(all)
			c := s.capture()
			heard := s.ear(all[1])
			s.in(netnsPath("h1"), func() { harm(s) })
			for range 3 {
				s.shout(all[0], all[1])
			}
			c.sealed(name)
			_ = heard
			s.in(netnsPath("h1"), func() { s.undoPast() })
			if !s.kernel {
				s.await("device of h1", func() bool { return s.deviceOf("h1") != "" })
			}
			if r := s.status("h1", s.hosts); r.code != 0 {
				t.Errorf("STATUS: %d %s", r.code, r.msg)
			}
			s.reachAll(all)
			c.sealed(name + ", mended")
		})
	}
}

// deleteDevice deletes the device of the host of the calling thread.
func (s *secure) deleteDevice() {
	s.t.Helper()
	s.check(netlink.LinkDel(s.link(s.deviceOf("h1"))))
}

// deleteRoutes deletes our routes of a type.
func (s *secure) deleteRoutes(typ int) {
	s.t.Helper()
	deleted := 0
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		all, err := netlink.RouteListFiltered(f, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		s.check(err)
		for _, r := range all {
			if r.Protocol == 108 && r.Type == typ {
				s.check(netlink.RouteDel(&r))
				deleted++
			}
		}
	}
	if deleted == 0 {
		s.t.Fatalf("there is no route of type %d", typ)
	}
}

// wireguardOf is the device of a host that has an alias, to be used there.
func (s *secure) wireguardOf(host string) wireguard.Device {
	s.t.Helper()
	d := wireguard.Device{Name: s.deviceOf(host)}
	if !s.kernel {
		d.Socket = wireguard.SocketPath("/run/libnet-"+host, d.Name)
	}
	return d
}

// takePeers takes all peers from the device of h1.
func (s *secure) takePeers() {
	s.t.Helper()
	d := s.wireguardOf("h1")
	have, err := d.Read()
	s.check(err)
	var c wireguard.Change
	for _, p := range have.Peers {
		c.Remove = append(c.Remove, p.PublicKey)
	}
	s.check(d.Change(c))
	if have, err = d.Read(); err != nil || len(have.Peers) != 0 || len(c.Remove) == 0 {
		s.t.Fatalf("peers left: %v, %v", have.Peers, err)
	}
}

// past are blocks of the second host, and ways there that are not encrypted.
var past = map[string]string{"10.80.1.0/24": "192.0.2.2", "10.80.1.0/25": "192.0.2.2"}

func (s *secure) pastTheTunnel() {
	s.t.Helper()
	for dst, gw := range past {
		s.check(netlink.RouteReplace(&netlink.Route{Dst: ipNet(s.cluster, dst), Gw: netip.MustParseAddr(gw).AsSlice()}))
	}
}

func (s *secure) undoPast() {
	for dst, gw := range past {
		_ = netlink.RouteDel(&netlink.Route{Dst: ipNet(s.cluster, dst), Gw: netip.MustParseAddr(gw).AsSlice()})
	}
}

// A host that is not in the list, one that is listed with another key, and one that was in
// the network and is not any more: nothing of the network gets there, or from there.
func TestWireGuardStrangers(t *testing.T) {
	t.Parallel()
	s := newSecure(t, 3, false)
	c := s.capture()
	two := s.hosts[:2]
	members := []container{s.attach("h1", "c-h1", two), s.attach("h2", "c-h2", two)}
	third := s.attach("h3", "c-h3", s.hosts) // has the keys of the others
	apart := func(when string) {
		t.Helper()
		for _, pair := range [][2]container{{third, members[0]}, {third, members[1]}, {members[0], third}} {
			heard := s.ear(pair[1])
			s.shout(pair[0], pair[1])
			if heard(noPingWait) {
				t.Errorf("%s: the payload of %s arrived on %s", when, pair[0].host, pair[1].host)
			}
			for _, a := range pair[1].addresses {
				s.noPing(pair[0].netns, a)
			}
		}
		s.reachAll(members)
		c.sealed(when)
	}
	renew := func(name string, hosts []string) {
		t.Helper()
		for _, h := range two {
			s.attach(h, name+"-"+h, hosts)
		}
	}
	apart("not in the list")
	own := s.keys["h3"]
	s.keys["h3"] = s.keygen("/run/foreign")
	renew("foreign", s.hosts)
	apart("with another key")
	s.keys["h3"] = own
	renew("in", s.hosts)
	s.reachAll(append([]container{third}, members...))
	renew("out", two)
	apart("evicted")
}

// While wireguard-go does not run nothing leaves. When it runs again, the containers reach
// each other without another call of a plugin.
func TestWireGuardAgentKilled(t *testing.T) {
	t.Parallel()
	s := newSecure(t, 2, false)
	if s.kernel {
		s.kernelOnly()
		return
	}
	all := s.all()
	s.reachAll(all)
	c := s.capture()
	s.procs["h1"].kill(t)
	s.await("end of the device", func() bool { return s.deviceOf("h1") == "" })
	s.in(netnsPath("h1"), s.pastTheTunnel)
	for range 3 {
		s.shout(all[0], all[1])
		s.shout(all[1], all[0])
	}
	c.sealed("wireguard-go killed")
	if r := s.status("h1", s.hosts); r.code != 50 || !strings.Contains(r.msg, "ln-agent wireguard") {
		t.Errorf("STATUS: %d %s, want 50", r.code, r.msg)
	}
	s.in(netnsPath("h1"), s.undoPast)
	s.startAgent("h1")
	s.reachAll(all)
	c.sealed("wireguard-go runs again")
	if r := s.status("h1", s.hosts); r.code != 0 {
		t.Errorf("STATUS: %d %s", r.code, r.msg)
	}
}

// kernelOnly wants ln-agent to leave a kernel with WireGuard alone.
func (s *secure) kernelOnly() {
	s.t.Helper()
	s.all()
	s.in(netnsPath("h1"), func() {
		if kind := s.link(s.deviceOf("h1")).Type(); kind != "wireguard" {
			s.t.Errorf("the device is a %s link", kind)
		}
	})
}

// From VXLAN to encryption and back under running containers: from the first ADD on a host on
// nothing leaves that host in clear, and neither way leaves anything of the other behind.
func TestWireGuardSwitch(t *testing.T) {
	t.Parallel()
	s := newSecure(t, 2, false)
	plainly := func(host, name string) container {
		p := container{host: host, netns: s.netns(name)}
		p.call = attachment("overlay-ln", name, p.netns, s.conf(0, host, nil))
		for _, a := range parseResult(s.t, s.mustOn(host, p.call.as("ADD")).stdout).addresses(s.t) {
			p.addresses = append(p.addresses, a.Addr())
		}
		return p
	}
	before := []container{plainly("h1", "v1"), plainly("h2", "v2")}
	s.ping(before[0].netns, before[1].addresses[0])
	c := s.capture()
	s.shout(before[0], before[1])
	if got := c.read(); got.marked == 0 || got.vxlan == 0 {
		t.Errorf("VXLAN: %d frames show the payload, %d are VXLAN: the capture sees nothing", got.marked, got.vxlan)
	}
	after := []container{s.attach("h1", "w1", s.hosts)}
	for _, from := range []container{before[0], after[0]} {
		s.shout(from, before[1])
	}
	c.sealed("h1 is encrypted, h2 is not")
	after = append(after, s.attach("h2", "w2", s.hosts))
	s.reachAll(after)
	s.reachAll(append(before[:2:2], after...))
	for _, from := range before {
		s.shout(from, append(before[:2:2], after...)...)
	}
	c.sealed("both are encrypted")
	for _, h := range s.hosts {
		s.check(os.Remove(confDir(h) + "/net0.conf"))
	}
	if !s.kernel {
		s.await("end of the devices", func() bool { return s.deviceOf("h1") == "" && s.deviceOf("h2") == "" })
	}
	s.shout(after[0], after[1])
	c.sealed("on the way back")
	back := []container{plainly("h1", "b1"), plainly("h2", "b2")}
	s.ping(back[0].netns, back[1].addresses[0])
	if left := s.deviceOf("h1"); left != "" {
		t.Errorf("%s is left", left)
	}
	s.in(netnsPath("h1"), func() {
		all, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Type: unix.RTN_UNREACHABLE}, netlink.RT_FILTER_TYPE)
		if s.check(err); len(all) > 0 {
			t.Errorf("left: %v", all)
		}
	})
}

// After GC with an empty list, and after network rm without a record, nothing of an encrypted
// network is left but the device that wireguard-go has.
func TestWireGuardEnds(t *testing.T) {
	t.Parallel()
	s := newSecure(t, 2, false)
	var before snapshot
	s.in(netnsPath("h1"), func() { before = s.snapshot() })
	const agents = `^(link|addr) wg-|dev wg-|/wireguard`
	for _, end := range []func(p container){
		func(p container) {
			s.mustOn("h1", call{plugin: "overlay-ln", command: "GC", stdin: edit(t, p.call.stdin, map[string]any{"cni.dev/valid-attachments": []string{}})})
		},
		func(container) {
			s.check(os.RemoveAll("/run/libnet-h1/networks"))
			s.lnctl(0, "network", "rm", "net0")
		},
	} {
		p := s.attach("h1", "c-h1", s.hosts)
		s.mustOn("h1", p.call.as("DEL"))
		s.loseNetns("c-h1")
		end(p)
		s.in(netnsPath("h1"), func() { s.sameBut(before, agents) })
	}
}

// Without a key that can be used, with another host's, or without any WireGuard nothing is
// attached, and the error says what to do; STATUS is 50.
func TestWireGuardRefuses(t *testing.T) {
	t.Parallel()
	s := newSecure(t, 2, false)
	c := s.capture()
	var before snapshot
	s.in(netnsPath("h1"), func() { before = s.snapshot() })
	s.check(os.WriteFile("/run/open-key", must(os.ReadFile(keyFile("h1"))), 0o644))
	s.check(os.WriteFile("/run/empty-key", nil, 0o600))
	s.check(os.WriteFile("/run/wrong-key", []byte("wrong\n"), 0o600))
	netns := s.netns("c1")
	for name, tt := range map[string]struct {
		keys map[string]any
		code uint
		want string
	}{
		"no file":        {map[string]any{"privateKeyFile": "/run/none"}, 7, `privateKeyFile: "/run/none": there is no such file: make it by "lnctl overlay keygen"`},
		"open to others": {map[string]any{"privateKeyFile": "/run/open-key"}, 7, `privateKeyFile: "/run/open-key": its mode is 0644: want 0600`},
		"empty":          {map[string]any{"privateKeyFile": "/run/empty-key"}, 7, `"/run/empty-key": it is empty`},
		"no key":         {map[string]any{"privateKeyFile": "/run/wrong-key"}, 7, `"/run/wrong-key": want 44 characters of base64`},
		"a directory":    {map[string]any{"privateKeyFile": "/run"}, 7, `"/run": it is no regular file`},
		"missing":        {map[string]any{"privateKeyFile": nil}, 7, `privateKeyFile: "": want the absolute path`},
		"relative":       {map[string]any{"privateKeyFile": "key"}, 7, `privateKeyFile: "key": want the absolute path`},
		"other cipher":   {map[string]any{"encryption": "ipsec"}, 7, `encryption: "ipsec": want "wireguard"`},
		"empty cipher":   {map[string]any{"encryption": ""}, 7, `encryption: "": want "wireguard"`},
		"forgotten":      {map[string]any{"encryption": nil}, 7, `is without effect: want "encryption": "wireguard", too`},
		"vni":            {map[string]any{"vni": 7}, 7, `vni: 7: want none`},
		"device":         {map[string]any{"device": "eth0"}, 7, `device: "eth0": cannot be together with encryption`},
		"no nodes":       {map[string]any{"nodes": nil}, 7, `privateKeyFile: "/run/key-h1": want none without nodes`},
		"no agent":       {map[string]any{"nodes": nil, "privateKeyFile": nil}, 11, `it is ln-agent that writes it`},
		"no second port": {map[string]any{"nodes": nil, "privateKeyFile": nil, "port": 65535}, 7, `port: 65535: want a UDP port from 1 to 65534`},
		"no public key":  {map[string]any{"nodes": []any{s.address(0).String(), s.address(1).String()}}, 7, `nodes[0].publicKey: missing`},
		"bad public key": {map[string]any{"nodes": []any{map[string]any{"address": s.address(0).String(), "publicKey": "abc"}}}, 7, `nodes[0].publicKey: "abc": want the host's public key`},
		"one key twice": {map[string]any{"nodes": []any{map[string]any{"address": s.address(0).String(), "publicKey": s.keys["h1"]},
			map[string]any{"address": s.address(1).String(), "publicKey": s.keys["h1"]}}}, 7, `nodes[0] has it, too`},
	} {
		conf := s.conf(0, "h1", s.with("h1", s.hosts, tt.keys))
		r := s.try(attachment("overlay-ln", "c1", netns, conf).as("ADD"))
		if r.code != tt.code || !strings.Contains(r.msg, tt.want) {
			t.Errorf("%s: code %d, %q, want %d and %q", name, r.code, r.msg, tt.code, tt.want)
		}
		r = s.try(call{plugin: "overlay-ln", command: "STATUS", stdin: conf})
		if r.code != 50 && r.code != 7 || !strings.Contains(r.msg, tt.want) {
			t.Errorf("%s: STATUS: code %d, %q, want 50 and %q", name, r.code, r.msg, tt.want)
		}
	}
	s.in(netnsPath("h1"), func() { s.sameBut(before, "") })
	if s.kernel {
		s.otherKey(netns)
	} else {
		s.withoutWireGuard(netns)
	}
	c.sealed("nothing was attached")
}

// otherKey wants a private key refused that is not the one of the host's publicKey. What runs
// with the right one goes on.
func (s *secure) otherKey(netns string) {
	s.t.Helper()
	conf := s.conf(0, "h1", s.with("h1", s.hosts, map[string]any{"privateKeyFile": keyFile("h2")}))
	want := fmt.Sprintf(`public key differs: it is %s, and the network's hosts know %s as the publicKey of 192.0.2.1 in nodes`, s.keys["h2"], s.keys["h1"])
	refused := func(when string) {
		s.t.Helper()
		if r := s.try(attachment("overlay-ln", "c1", netns, conf).as("ADD")); r.code != 7 || !strings.Contains(r.msg, want) || !strings.HasPrefix(r.msg, `privateKeyFile: "/run/key-h2": `) {
			s.t.Errorf("%s: code %d, %q, want 7 and %q", when, r.code, r.msg, want)
		}
	}
	refused("first")
	if left := s.deviceOf("h1"); left != "" {
		s.t.Errorf("device %s is left", left)
	}
	all := s.all()
	refused("beside a container")
	s.reachAll(all)
}

// withoutWireGuard is on a kernel that has none.
func (s *secure) withoutWireGuard(netns string) {
	s.t.Helper()
	s.procs["h1"].stop(s.t)
	conf := s.conf(0, "h1", s.with("h1", s.hosts, nil))
	const want = `encryption: "wireguard": not supported by this kernel: WireGuard: load its module wireguard, or run "ln-agent wireguard"`
	if r := s.try(attachment("overlay-ln", "c1", netns, conf).as("ADD")); r.code != 2 || !strings.Contains(r.msg, want) {
		s.t.Errorf("ADD without WireGuard: code %d, %q, want 2 and %q", r.code, r.msg, want)
	}
	if r := s.status("h1", s.hosts); r.code != 50 || !strings.Contains(r.msg, want) {
		s.t.Errorf("STATUS without WireGuard: code %d, %q, want 50 and %q", r.code, r.msg, want)
	}
	s.in(netnsPath("h1"), func() {
		if left := s.deviceOf("h1"); left != "" {
			s.t.Errorf("device %s is left", left)
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Twenty containers come at once to each of two hosts, and go: all of them reach the other
// host, and nothing is left.
func TestWireGuardStorm(t *testing.T) {
	t.Parallel()
	s := newSecure(t, 2, false)
	c := s.capture()
	var before snapshot
	s.in(netnsPath("h1"), func() { before = s.snapshot() })
	calls := map[string][]call{}
	for _, h := range s.hosts {
		for i := range 20 {
			name := fmt.Sprintf("s%d-%s", i, h)
			calls[h] = append(calls[h], attachment("overlay-ln", name, s.netns(name), s.conf(0, h, s.with(h, s.hosts, nil))))
		}
	}
	atOnce := func(host, verb string) (all []netip.Addr) {
		var of []call
		for _, p := range calls[host] {
			of = append(of, p.as(verb))
		}
		s.in(netnsPath(host), func() {
			replies := s.atOnce(of)
			if verb == "ADD" {
				all = s.distinct(of, replies)
			}
		})
		return all
	}
	far := atOnce("h2", "ADD")
	atOnce("h1", "ADD")
	for i, p := range calls["h1"] {
		s.ping(p.netns, far[i])
	}
	c.sealed("40 containers")
	atOnce("h1", "DEL")
	s.mustOn("h1", call{plugin: "overlay-ln", command: "GC", stdin: edit(t, calls["h1"][0].stdin, map[string]any{"cni.dev/valid-attachments": []string{}})})
	s.in(netnsPath("h1"), func() { s.sameBut(before, `^(link|addr) wg-|dev wg-`) })
}

// Records that were lost and rebuilt leave the rules of an encrypted network as they are.
func TestWireGuardRebuilt(t *testing.T) {
	t.Parallel()
	s := newSecure(t, 2, false)
	all := s.all()
	s.reachAll(all)
	s.check(os.RemoveAll("/run/libnet-h1/networks"))
	s.lnctl(0, "repair")
	c := s.capture()
	s.in(netnsPath("h1"), func() { s.deleteDevice(); s.pastTheTunnel() })
	for range 3 {
		s.shout(all[0], all[1])
	}
	c.sealed("records rebuilt, device deleted")
	s.in(netnsPath("h1"), s.undoPast)
	if r := s.status("h1", s.hosts); r.code != 0 {
		t.Errorf("STATUS: %d %s", r.code, r.msg)
	}
	more := s.attach("h1", "more", s.hosts)
	s.reachAll([]container{all[0], more, all[1]})
	c.sealed("records rebuilt, mended")
}

// A packet in clear from a stranger on the link, with a source of the network, does not get
// to a container, though the gateway mode lets in what has another source.
func TestWireGuardInjection(t *testing.T) {
	t.Parallel()
	s := newSecure(t, 3, false)
	two := s.hosts[:2]
	to := container{host: "h1", netns: s.netns("c-h1")}
	call := attachment("overlay-ln", "c-h1", to.netns, s.conf(0, "h1", s.with("h1", two, map[string]any{"gatewayMode": "nat-unprotected"})))
	for _, a := range parseResult(t, s.mustOn("h1", call.as("ADD")).stdout).addresses(t) {
		to.addresses = append(to.addresses, a.Addr())
	}
	heard := s.ear(to)
	s.in(netnsPath("h3"), func() {
		s.check(netlink.RouteReplace(&netlink.Route{Dst: ipNet(s.cluster, "10.80.0.0/24"), Gw: s.address(0).AsSlice()}))
	})
	s.setAddress(netnsPath("h3"), "lo", "10.80.1.77/32")
	for _, tt := range []struct {
		from netip.Addr
		want bool
	}{{netip.MustParseAddr("10.80.1.77"), false}, {s.address(2), true}} {
		s.in(netnsPath("h3"), func() {
			at := net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.addresses[0], markerPort))
			out, err := net.DialUDP("udp4", &net.UDPAddr{IP: tt.from.AsSlice()}, at)
			s.check(err)
			_, err = out.Write([]byte(marker))
			s.check(errors.Join(err, out.Close()))
		})
		if got := heard(pick2(tt.want, agentPatience, noPingWait)); got != tt.want {
			t.Errorf("from %s: heard %t, want %t", tt.from, got, tt.want)
		}
	}
}
