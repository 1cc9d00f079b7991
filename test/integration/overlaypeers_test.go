package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// lnctl runs the operator's tool on the first host and returns what it printed.
func (c *cluster) lnctl(wantCode int, args ...string) (stdout, stderr string) {
	c.t.Helper()
	var out, errs bytes.Buffer
	c.in(netnsPath("h1"), func() {
		cmd := exec.Command(program(c.t, "lnctl"), append(args, "--state-dir", "/run/libnet-h1")...)
		cmd.Stdout, cmd.Stderr = &out, &errs
		var exit *exec.ExitError
		if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
			c.t.Fatal(err)
		}
		if code := cmd.ProcessState.ExitCode(); code != wantCode {
			c.t.Errorf("%v: exit code %d, want %d\n%s%s", cmd.Args, code, wantCode, &out, &errs)
		}
	})
	return out.String(), errs.String()
}

// row is the line of a table that has all of some words, its blanks squeezed.
func row(table string, words ...string) string {
	for line := range strings.Lines(table) {
		line = strings.Join(strings.Fields(line), " ")
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return line
		}
	}
	return ""
}

// lnctl overlay check finds the fault that keeps a peer away, and says how to mend it; of the
// other peer it says that all is well.
func TestOverlayCheckFinds(t *testing.T) {
	udpDrop := "table inet guard {\n chain in {\n type filter hook input priority 0; policy accept;\n udp dport 4789 drop\n }\n}\n"
	for name, tt := range map[string]struct {
		is6   bool
		harm  func(c *cluster)
		peers int      // exit code of overlay peers
		rows  []string // for the blocks of h2, of the columns after the block
		says  []string
	}{
		"peer down": {false, func(c *cluster) {
			c.in(netnsPath("h2"), func() { c.check(netlink.LinkSetDown(c.link("eth0"))) })
		}, 0, []string{"present present present none -", "present present present none -"}, []string{
			"→ net0, 192.0.2.2: 3 ICMP echo requests of 104 bytes to 10.80.1.0 through the tunnel, no answer; nor does 192.0.2.2 answer on the underlay",
		}},
		"small MTU of the underlay": {false, func(c *cluster) { c.check(netlink.LinkSetMTU(c.link("to-h2"), 1400)) }, 0,
			[]string{"ms 1354, not 1450", "ms 1354, not 1450"}, []string{`the MTU of the underlay is smaller: 1354 bytes come back from 10.80.1.0`, `by 100, or set "mtu": 1350 in`}},
		"small MTU of the underlay, IPv6": {true, func(c *cluster) { c.check(netlink.LinkSetMTU(c.link("to-h2"), 1400)) }, 0,
			[]string{"ms 1330, not 1430"}, []string{`"mtu": 1326`}},
		"small MTU of the route": {false, func(c *cluster) {
			c.in(netnsPath("h1"), func() {
				c.check(netlink.RouteAdd(&netlink.Route{Dst: ipNet(c, "192.0.2.2/32"), LinkIndex: c.link("eth0").Attrs().Index, MTU: 1300}))
			})
		}, 1, []string{"ms 1450"}, []string{"this host's route to 192.0.2.2 leaves 1250 bytes", `"mtu": 1250`}},
		"UDP port dropped": {false, func(c *cluster) {
			c.in(netnsPath("h2"), func() { c.nft(udpDrop) })
		}, 0, []string{"none -"}, []string{"though 192.0.2.2 answers on the underlay: UDP port 4789 blocked"}},
		"network not there yet": {false, func(c *cluster) {
			c.in(netnsPath("h2"), func() { c.check(netlink.LinkDel(c.link(c.tunnelOf("h2")))) })
		}, 0, []string{"none -"}, []string{"or the network is not there yet"}},
		"forwarding entry deleted": {false, func(c *cluster) { c.eachFDB(netlink.NeighDel) }, 1,
			[]string{"present present missing none -"}, []string{"the forwarding entry is missing: the next ADD of the network"}},
		"forwarding entry to another host": {false, func(c *cluster) {
			c.eachFDB(func(n *netlink.Neigh) error { n.IP = c.address(2).AsSlice(); return netlink.NeighSet(n) })
		}, 1, []string{"differing: 192.0.2.3"}, []string{"the forwarding entry is another: 192.0.2.3"}},
		"route deleted": {false, func(c *cluster) { c.dropRoute() }, 1, []string{"missing present present"}, []string{"the route to 10.80.1.0/24 is missing"}},
		"another route": {false, func(c *cluster) {
			c.dropRoute()
			c.in(netnsPath("h1"), func() {
				c.check(netlink.RouteAdd(&netlink.Route{Dst: ipNet(c, "10.80.1.0/24"), LinkIndex: c.link("eth0").Attrs().Index, Gw: c.address(2).AsSlice()}))
			})
		}, 1, []string{"differing: via 192.0.2.3 by eth0"}, []string{"is another: via 192.0.2.3 by eth0"}},
		"neighbour with another MAC": {false, func(c *cluster) {
			c.in(netnsPath("h1"), func() {
				c.check(netlink.NeighSet(&netlink.Neigh{LinkIndex: c.link(c.tunnelOf("h1")).Attrs().Index, IP: netip.MustParseAddr("10.80.1.0").AsSlice(),
					HardwareAddr: []byte{2, 0, 0, 0, 0, 9}, State: netlink.NUD_PERMANENT}))
			})
		}, 1, []string{"present differing: 02:00:00:00:00:09 present none -"}, []string{"the neighbour 10.80.1.0 is another"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 3, 1500, tt.is6)
			for _, host := range c.hosts {
				c.add(0, host, nil)
			}
			c.lnctl(0, "overlay", "peers", "net0")
			c.lnctl(0, "overlay", "check")
			tt.harm(c)
			c.lnctl(tt.peers, "overlay", "peers", "net0")
			out, stderr := c.lnctl(1, "overlay", "check", "net0", "--wait", "500ms")
			for i, want := range tt.rows {
				if got := row(out, c.address(1).String()+" ", []string{"10.80.1.0/24", "fd80:0:0:1::/64"}[i]); !strings.Contains(got, want) {
					t.Errorf("row %q, want %q", got, want)
				}
			}
			for _, want := range tt.says {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
			for _, block := range []string{"10.80.2.0/24", "fd80:0:0:2::/64"} {
				got := row(out, c.address(2).String()+" ", block)
				if !strings.Contains(got, "present present present") || !strings.Contains(got, " ms 14") {
					t.Errorf("row %q of the peer that is well", got)
				}
			}
			if want := "lnctl: 1 of 2 peers are not healthy\n"; stderr != want {
				t.Errorf("stderr %q, want %q", stderr, want)
			}
		})
	}
}

// eachFDB does something with the entry for h2 in the tunnel of h1.
func (c *cluster) eachFDB(do func(*netlink.Neigh) error) {
	c.t.Helper()
	c.in(netnsPath("h1"), func() {
		all, err := netlink.NeighList(c.link(c.tunnelOf("h1")).Attrs().Index, unix.AF_BRIDGE)
		c.check(err)
		for _, n := range all {
			if n.IP.String() == c.address(1).String() {
				n.Flags, n.Family = unix.NTF_SELF, unix.AF_BRIDGE
				c.check(do(&n))
			}
		}
	})
}

func (c *cluster) dropRoute() {
	c.t.Helper()
	c.in(netnsPath("h1"), func() {
		c.check(netlink.RouteDel(&netlink.Route{Dst: ipNet(c, "10.80.1.0/24"), LinkIndex: c.link(c.tunnelOf("h1")).Attrs().Index}))
	})
}

func (c *cluster) nft(rules string) {
	c.t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("nft: %v\n%s", err, out)
	}
}

// Many peers that do not answer take no longer than one.
func TestOverlayCheckManyPeers(t *testing.T) {
	lntest.NeedsRoot(t, "SO_SNDBUFFORCE makes room for a transaction of a thousand elements")
	t.Parallel()
	c := newCluster(t, 2, 1500, false)
	nodes := []string{c.address(0).String(), c.address(1).String()}
	for i := range 998 {
		nodes = append(nodes, fmt.Sprintf("198.51.%d.%d", 100+i/250, 1+i%250))
	}
	keys := map[string]any{"nodes": nodes, "subnet": "10.64.0.0/10"}
	c.add(0, "h1", keys)
	c.add(0, "h2", keys)
	began := time.Now()
	out, _ := c.lnctl(1, "overlay", "check", "--json", "--wait", "1s")
	if took := time.Since(began); took > 2*time.Minute { // one after the other: half an hour
		t.Errorf("took %s, want 2 s on an idle machine", took)
	}
	var got []struct {
		Peers []struct {
			Address string
			Ways    []struct {
				Small, Full struct {
					Bytes, Sent int
					Ms          string
				}
			}
		}
	}
	c.check(json.Unmarshal([]byte(out), &got))
	answers := 0
	for _, p := range got[0].Peers {
		if w := p.Ways[0]; w.Small.Ms != "" && w.Full.Ms != "" {
			answers++
		}
	}
	if len(got[0].Peers) != 999 || answers != 1 {
		t.Errorf("%d peers, %d answer: want 999, and 1", len(got[0].Peers), answers)
	}
}

// lnctl overlay check refuses, with a reason, a network that is no overlay or may not be asked.
func TestOverlayCheckRefuses(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, 1500, false)
	c.in(netnsPath("h1"), func() { c.check(os.MkdirAll("/run/libnet-h1", 0o700)) })
	if out, _ := c.lnctl(0, "overlay", "check", "--json"); out != "[]\n" {
		t.Errorf("without networks: %q", out)
	}
	c.add(0, "h1", map[string]any{"isolated": true})
	if out, _ := c.lnctl(0, "overlay", "check"); !strings.Contains(out, "no peer is asked: the network is isolated") {
		t.Errorf("isolated:\n%s", out)
	}
	c.in(netnsPath("h1"), func() { c.check(netlink.LinkDel(c.link(c.tunnelOf("h1")))) })
	if out, _ := c.lnctl(1, "overlay", "peers", "net0"); !strings.Contains(out, "not found: no such device: the next ADD of the network on this host puts it right") {
		t.Errorf("without device:\n%s", out)
	}
	plain := attachment("bridge-ln", "plain", c.netns("plain"), `{"cniVersion":"1.1.0","name":"plain","type":"bridge-ln","stateDir":"/run/libnet-h1"}`)
	c.mustOn("h1", plain.as("ADD"))
	if _, stderr := c.lnctl(1, "overlay", "peers", "plain"); stderr != "lnctl: network \"plain\" does not span hosts: it is not of overlay-ln\n" {
		t.Errorf("a bridge: %q", stderr)
	}
	c.lnctl(1, "overlay", "peers", "none")
	c.lnctl(2, "overlay", "peers", "a", "b")
}

// Of networks that an agent keeps the hosts are listed and asked as of others,
// before the first container as well, and what is wrong is found.
func TestOverlayCheckOfAgent(t *testing.T) {
	t.Parallel()
	a := newAgents(t, 2)
	a.up(nil)
	both := func(what string) {
		t.Helper()
		for _, block := range a.nodeFile("h2").Blocks {
			out, _ := a.lnctl(0, "overlay", "peers")
			if got := row(out, "net0", a.address(1).String(), block); !strings.HasSuffix(got, "present present present") {
				t.Errorf("%s: peers: %q in\n%s", what, got, out)
			}
			out, _ = a.lnctl(0, "overlay", "check", "net0")
			if got := row(out, "net0", a.address(1).String(), block); !strings.Contains(got, " ms 14") {
				t.Errorf("%s: check: %q in\n%s", what, got, out)
			}
		}
	}
	both("without containers")
	a.attach("h1", "near", nil)
	both("with a container")
	a.in(netnsPath("h2"), func() {
		a.nft("table inet guard {\n chain in {\n type filter hook input priority 0; policy accept;\n udp dport 4789 drop\n }\n}\n")
	})
	if out, _ := a.lnctl(1, "overlay", "check", "--wait", "500ms"); !strings.Contains(out, "UDP port 4789 blocked") {
		t.Errorf("a blocked port:\n%s", out)
	}
	a.procs["h1"].stop(t)
	a.eachFDB(netlink.NeighDel)
	if out, _ := a.lnctl(1, "overlay", "peers"); !strings.Contains(out, "the forwarding entry is missing: ln-agent puts it right") {
		t.Errorf("a missing entry:\n%s", out)
	}
}

// Hosts of different MTU lose large packets one way without a word: doctor finds
// it on the host that has the larger one.
func TestOverlayDoctorMTU(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, 1500, false)
	c.add(0, "h1", nil)
	c.add(0, "h2", nil)
	doctor := func() string {
		var out []byte
		c.in(netnsPath("h1"), func() {
			out, _ = exec.Command(program(t, "lnctl"), "doctor", "--state-dir", "/run/libnet-h1").CombinedOutput()
		})
		return string(out)
	}
	if got := row(doctor(), "overlay MTU"); !strings.HasPrefix(got, "✓") {
		t.Errorf("all is well: %q", got)
	}
	c.check(netlink.LinkSetMTU(c.link("to-h2"), 1400))
	if got := doctor(); !strings.HasPrefix(row(got, "overlay MTU"), "✗ overlay MTU net0: of the tunnel's 1450 bytes 1354 reach 192.0.2.2") || !strings.Contains(got, `"mtu": 1350`) {
		t.Errorf("small MTU on the way:\n%s", got)
	}
}
