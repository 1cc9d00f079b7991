package integration

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// everyWay is the modes that publish ports of the host, each by other rules.
var everyWay = []string{"nat", "open", "portmap-ln"}

// eachWay runs a test on a host of its own for each backend, in some modes.
func eachWay(t *testing.T, modes []string, test func(*reachLab)) {
	t.Helper()
	for _, mode := range modes {
		for _, backend := range []string{"nftables", "iptables"} {
			t.Run(mode+"/"+backend, func(t *testing.T) {
				t.Parallel()
				test(newReachLab(t, mode, firewall{backend, "ACCEPT"}))
			})
		}
	}
}

// visit is a client, an address, and the server that answers there by TCP and
// UDP; a want of "✗" is no server, see the tables.
type visit struct{ client, to, server, want string }

// visit makes all visits at once.
func (l *reachLab) visit(all ...visit) {
	l.t.Helper()
	var probes []probe
	for _, v := range all {
		for _, protocol := range protocols(v.to) {
			probes = append(probes, probe{v.client, v.to, protocol, netip.MustParseAddrPort(v.to), v.server, v.want})
		}
	}
	l.ask(probes)
}

// at is a port of one of the lab's addresses.
func (l *reachLab) at(client string, is6 bool, port uint16) string {
	l.t.Helper()
	return netip.AddrPortFrom(l.addressOf(client, is6), port).String()
}

// published is a list of ports that all go to the container's port 80, by TCP
// and UDP. A port is "8080", "192.0.2.10:8080" or "[2001:db8::10]:8080", each
// with the end of a range, or none: "8080-8089".
func published(ports ...string) string {
	var all []string
	for _, p := range ports {
		ip := p[:max(0, strings.LastIndex(p, ":"))]
		from, to, isRange := strings.Cut(p[strings.LastIndex(p, ":")+1:], "-")
		for _, protocol := range protocols(p) {
			m := fmt.Sprintf(`{"hostPort":%s,"containerPort":80,"protocol":%q`, from, protocol)
			if isRange {
				m += `,"hostPortEnd":` + to
			}
			if ip != "" {
				m += fmt.Sprintf(`,"hostIP":%q`, strings.Trim(ip, "[]"))
			}
			all = append(all, m+"}")
		}
	}
	return "[" + strings.Join(all, ",") + "]"
}

// TestPortHeld asks for ports that another container has, of the same host
// address or of any: the error names their owner, and nothing changes.
func TestPortHeld(t *testing.T) {
	lntest.NeedsRoot(t, "SO_SNDBUFFORCE makes room for a transaction of a thousand elements")
	eachWay(t, []string{"nat", "portmap-ln"}, func(l *reachLab) {
		l.add(l.container(reachNetworks[1], "sibling", ""))
		for _, test := range []struct{ has, wants string }{
			{"8080", "8080"},
			{"8080", "192.0.2.10:8080"},
			{"192.0.2.10:8080", "8080"},
			{"192.0.2.10:8080", "192.0.2.10:8080"},
			{"0.0.0.0:8080", "8080"},
			{"[::]:8080", "[2001:db8::10]:8080"},
			{"8000-8999", "192.0.2.1:8080"},
			{"192.0.2.10:8080", "8000-8999"},
			{"8000-8080", "8080-8090"},
		} {
			l.conflict(test.has, test.wants)
		}
	})
}

func (l *reachLab) conflict(has, wants string) {
	l.t.Helper()
	first := l.add(l.container(reachNetworks[0], "server", published(has)))
	second := l.container(reachNetworks[1], "other", published(wants))
	last := len(second) - 1
	if last > 0 {
		result := l.must(second[0].as("ADD")).stdout
		second[last] = second[last].with(edit(l.t, second[last].stdin, keys{"prevResult": rawJSON(result)}))
	}
	before, leased := l.rules(), leases(l.t, "two")
	r := l.run(second[last].as("ADD"))
	if r.code != 101 || !strings.Contains(r.msg, "host port ") || !strings.Contains(r.msg, "one/server/eth0") {
		l.t.Errorf("ADD of %s beside %s: code %d: %s; want 101 with the host port and one/server/eth0", wants, has, r.code, r.msg)
	}
	if diff := cmp.Diff(before, l.rules()); diff != "" {
		l.t.Errorf("ADD of %s beside %s was refused and changed the rules (-before +now):\n%s", wants, has, diff)
	}
	if diff := cmp.Diff(leased, leases(l.t, "two")); diff != "" {
		l.t.Errorf("ADD of %s beside %s was refused and changed the leases (-before +now):\n%s", wants, has, diff)
	}
	l.del(first)
	l.must(second[last].as("ADD"))
	l.del(second)
}

// TestPortShared publishes the same number for several containers where the
// host's addresses, families or protocols differ.
func TestPortShared(t *testing.T) {
	eachWay(t, everyWay, func(l *reachLab) {
		l.answer("server", 80)
		l.answer("other", 80)
		l.add(l.container(reachNetworks[0], "server", published("127.0.0.2:8080", "192.0.2.1:8080", "[::]:8090")))
		l.add(l.container(reachNetworks[1], "other", published("127.0.0.3:8080", "192.0.2.10:8080", "0.0.0.0:8090")))
		l.visit(
			visit{"host", "127.0.0.2:8080", "server", "M"},
			visit{"host", "127.0.0.3:8080", "other", "M"},
			visit{"host", "192.0.2.1:8080", "server", "✓"},
			visit{"host", "192.0.2.10:8080", "other", "✓"},
			visit{"neighbour", "192.0.2.1:8080", "server", "✓"},
			visit{"neighbour", "192.0.2.10:8080", "other", "✓"},
			visit{"neighbour", "192.0.2.1:8090", "other", "✓"},
			visit{"neighbour", "[2001:db8::1]:8090", "server", "✓"},
			visit{"host", "127.0.0.1:8080", "", "✗"},
			visit{"host", "10.80.0.1:8080", "", "✗"},
			visit{"attacker", "127.0.0.2:8080", "", "✗"},
			visit{"attacker", "127.0.0.3:8080", "", "✗"},
		)
	})
}

// TestPortForeign asks other machines for the port number that is published
// here: what the host only forwards it must not take (CVE-2025-67499).
func TestPortForeign(t *testing.T) {
	eachWay(t, []string{"open", "portmap-ln"}, func(l *reachLab) {
		for _, name := range []string{"server", "other", "remote"} {
			l.answer(name, 8080)
		}
		l.answer("server", 80)
		l.add(l.container(reachNetworks[0], "server", published("8080", "127.0.0.1:8081")))
		l.add(l.container(reachNetworks[1], "other", ""))
		var all []visit
		for _, is6 := range []bool{false, true} {
			for _, to := range []string{"other", "remote"} {
				for _, client := range []string{"host", "neighbour", "self", "other", "remote"} {
					all = append(all, visit{client, l.at(to, is6, 8080), to, "✓"})
				}
			}
			all = append(all, visit{"remote", netip.AddrPortFrom(hostAddr(is6), 8080).String(), "server", "✓"})
		}
		l.visit(all...)
	})
}

// TestPortRange publishes a range: its ports keep their order.
func TestPortRange(t *testing.T) {
	eachWay(t, everyWay, func(l *reachLab) {
		l.answer("server", 82)
		l.answer("other", 9005)
		l.add(l.container(reachNetworks[0], "server", published("9000-9003")))
		same := strings.ReplaceAll(published("9004-9009"), `"containerPort":80`, `"containerPort":9004`)
		l.add(l.container(reachNetworks[1], "other", same))
		var all []visit
		for _, host := range []string{"192.0.2.1", "[2001:db8::1]"} {
			all = append(all, visit{"remote", host + ":9002", "server", "✓"}, visit{"remote", host + ":9005", "other", "✓"})
			for _, port := range []string{":8999", ":9000", ":9003", ":9004", ":9010"} {
				all = append(all, visit{"remote", host + port, "", "✗"})
			}
		}
		l.visit(all...)
	})
}

// TestPortSources publishes a port for some clients only.
func TestPortSources(t *testing.T) {
	eachWay(t, everyWay, func(l *reachLab) {
		l.answer("server", 80)
		ports := strings.ReplaceAll(published("8080"), "}", `,"sourceRanges":["192.0.2.2/32","2001:db8:1::/64"]}`)
		l.add(l.container(reachNetworks[0], "server", ports))
		l.visit(
			visit{"neighbour", "192.0.2.1:8080", "server", "✓"},
			visit{"attacker", "192.0.2.1:8080", "", "✗"},
			visit{"remote", "192.0.2.1:8080", "", "✗"},
			visit{"remote", "[2001:db8::1]:8080", "server", "✓"},
			visit{"attacker", "[2001:db8::1]:8080", "", "✗"},
			visit{"neighbour", "[2001:db8::1]:8080", "", "✗"},
		)
	})
}

// TestPortUDPMoves has a client go on with one UDP socket while the container
// behind the port is replaced: the new one has the very next datagram, even if
// the host has answered one itself in between.
func TestPortUDPMoves(t *testing.T) {
	eachWay(t, everyWay, func(l *reachLab) {
		l.netns("fresh")
		for _, name := range []string{"server", "fresh"} {
			l.answer(name, 80)
		}
		l.add(l.container(reachNetworks[0], "sibling", ""))
		old := l.container(reachNetworks[0], "server", published("8080"))
		l.add(old)
		clients := map[string]*socket{}
		for _, client := range []string{"host", "remote", "sibling"} {
			for _, host := range []string{"192.0.2.1", "[2001:db8::1]"} {
				to := netip.MustParseAddrPort(host + ":8080")
				l.in(l.place(client), func() {
					s, err := dial("udp", 0, to)
					l.check(err)
					l.t.Cleanup(func() { _ = s.Close() })
					clients[client+" → "+to.String()] = s
				})
			}
		}
		l.talk(clients, "server", somethingWait)
		l.del(old)
		l.talk(clients, "", nothingWait)
		l.add(l.container(reachNetworks[0], "fresh", published("8080")))
		l.talk(clients, "fresh", somethingWait)
	})
}

// talk sends a datagram from each client; the server answers, or no answer comes.
func (l *reachLab) talk(clients map[string]*socket, server string, patience time.Duration) {
	l.t.Helper()
	for name, s := range clients {
		s.words = "?"
		for err := error(nil); server == "" && err == nil; { // answers to what was sent twice
			l.check(s.SetReadDeadline(time.Now().Add(patience)))
			_, err = s.hear()
		}
		said, err := s.exchange(patience)
		if client, _, _ := strings.Cut(said, " "); client != server || (err == nil) != (server != "") {
			l.t.Errorf("%s: %q answers, error %v, want %q", name, client, err, server)
		}
	}
}
