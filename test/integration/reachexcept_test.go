package integration

import "testing"

// TestReachTrusted opens the published ports of containers to clients that come by a
// trusted interface, and no other.
func TestReachTrusted(t *testing.T) {
	eachWay(t, []string{"nat"}, func(l *reachLab) {
		l.exception(keys{"trustedInterfaces": []string{"uplink"}})
		for _, is6 := range []bool{false, true} {
			published, other := l.at("server", is6, 80), l.at("server", is6, 81)
			l.visit(
				visit{"neighbour", published, "server", "✓"},
				visit{"neighbour", other, "", "✗"},
				visit{"remote", published, "server", "✓"},
				visit{"remote", other, "", "✗"},
				visit{"other", published, "", "✗"},
			)
		}
	})
}

// TestReachMark opens every port of containers to packets that a rule of the
// operator has marked.
func TestReachMark(t *testing.T) {
	eachWay(t, []string{"nat"}, func(l *reachLab) {
		l.tool(`table inet marker {
			chain prerouting {
				type filter hook prerouting priority -400
				iifname "uplink" ip saddr 192.0.2.2 meta mark set 0x47
				iifname "uplink" ip6 saddr 2001:db8::2 meta mark set 0x47
				iifname "uplink" ip saddr 192.0.2.3 meta mark set 0x43
			}
		}`, "nft", "-f", "-")
		l.exception(keys{"acceptFwMark": "0x7/0xf"})
		for _, is6 := range []bool{false, true} {
			published, other := l.at("server", is6, 80), l.at("server", is6, 81)
			l.visit(
				visit{"neighbour", published, "server", "✓"},
				visit{"neighbour", other, "server", "✓"},
				visit{"attacker", published, "", "✗"},
				visit{"attacker", other, "", "✗"},
				visit{"remote", other, "", "✗"},
			)
		}
	})
}

// exception attaches a server, with more keys, and other.
func (l *reachLab) exception(more keys) {
	l.t.Helper()
	l.answer("server", 80, 81)
	server := l.container(reachNetworks[0], "server", published("8080"))
	server[0] = server[0].with(edit(l.t, server[0].stdin, more))
	l.add(server)
	l.add(l.container(reachNetworks[1], "other", ""))
}
