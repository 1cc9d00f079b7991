package integration

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// damages are what may happen to the records of network "shut", whose container
// lives on a bridge that it closes.
var damages = map[string]func(h *host){
	"none":                        func(*host) {},
	"attachment cut off":          func(h *host) { h.cutOff(stateDir + "/networks/shut/endpoints/*.json") },
	"attachment gone":             func(h *host) { h.lose(stateDir + "/networks/shut/endpoints/*.json") },
	"guard cut off":               func(h *host) { h.cutOff(stateDir + "/bridges/brl/shut:*.json") },
	"guard gone":                  func(h *host) { h.lose(stateDir + "/bridges/brl/shut:*.json") },
	"network cut off":             func(h *host) { h.cutOff(stateDir + "/networks/shut/network.json") },
	"network cut off, index gone": func(h *host) { h.cutOff(stateDir + "/networks/shut/network.json"); h.lose(stateDir + "/bridges/brl") },
	"attachment cut off, index gone": func(h *host) {
		h.cutOff(stateDir + "/networks/shut/endpoints/*.json")
		h.lose(stateDir + "/bridges/brl")
	},
	"attachment and its guard cut off": func(h *host) {
		h.cutOff(stateDir + "/networks/shut/endpoints/*.json")
		h.cutOff(stateDir + "/bridges/brl/shut:*.json")
	},
}

// cutOff leaves the first bytes of the only file that has such a name.
func (h *host) cutOff(pattern string) {
	h.t.Helper()
	h.check(os.Truncate(h.only(pattern), 40))
}

func (h *host) lose(pattern string) {
	h.t.Helper()
	h.check(os.RemoveAll(h.only(pattern)))
}

func (h *host) only(pattern string) string {
	h.t.Helper()
	paths, err := filepath.Glob(pattern)
	h.check(err)
	if len(paths) != 1 {
		h.t.Fatalf("%s: %d files", pattern, len(paths))
	}
	return paths[0]
}

// lostGuard is a host with a bridge that network "shut" closes for its container s;
// networks "open", with o and p, and "next", with n, ask for nothing.
type lostGuard struct {
	*host
	shut, open, next string
	s, o, n          call
}

func newLostGuard(t *testing.T, backend string) lostGuard {
	l := lostGuard{host: newHost(t)}
	l.world()
	l.route(netnsPath("world"), "10.83.0.0/24", hostAddr(false).String())
	conf := func(name, start, end string, more keys) string {
		return edit(t, edit(t, `{"cniVersion":"1.1.0","type":"bridge-ln","bridge":"brl","isDefaultGateway":true,"ipam":{"type":"ipam-ln","subnet":"10.83.0.0/24"}}`,
			keys{"name": name, "backend": backend, "ipam.rangeStart": start, "ipam.rangeEnd": end}), more)
	}
	l.shut = conf("shut", "10.83.0.10", "10.83.0.19", keys{"gatewayMode": "nat"})
	l.open = conf("open", "10.83.0.20", "10.83.0.29", nil)
	l.next = conf("next", "10.83.0.30", "10.83.0.39", nil)
	l.s = attachment("bridge-ln", "s", l.netns("s"), l.shut)
	l.o = attachment("bridge-ln", "o", l.netns("o"), l.open)
	l.n = attachment("bridge-ln", "n", l.netns("n"), l.next)
	for _, c := range []call{l.s, l.o, attachment("bridge-ln", "p", l.netns("p"), l.open)} {
		l.must(c.as("ADD"))
	}
	return l
}

// closed says that only the host reaches the container of "shut".
func (l lostGuard) closed(when string) {
	l.t.Helper()
	failed := l.t.Failed()
	l.noPing(netnsPath("world"), netip.MustParseAddr("10.83.0.10"))
	l.ping("", netip.MustParseAddr("10.83.0.10"))
	if !failed && l.t.Failed() {
		l.t.Errorf("that was %s", when)
	}
}

func (l lostGuard) leaves(conf string) {
	l.t.Helper()
	l.must(call{plugin: "bridge-ln", command: "GC", stdin: edit(l.t, conf, keys{"cni.dev/valid-attachments": raw(`[]`)})})
}

// No bridge opens because a record cannot be read: what a container came with
// holds, whatever other networks on its bridge do.
func TestLostGuard(t *testing.T) {
	for damage, damaged := range damages {
		for _, backend := range []string{"nftables", "iptables"} {
			for event, happens := range map[string]func(l lostGuard){
				"the last container of a third network leaves": func(l lostGuard) { l.must(l.n.as("DEL")); l.closed("after DEL") },
				"networks are removed": func(l lostGuard) {
					l.leaves(l.next)
					l.closed("after GC of one")
					l.leaves(l.open)
					l.closed("after GC of the other")
				},
				"another network joins, and leaves": func(l lostGuard) {
					last := attachment("bridge-ln", "last", l.netns("last"), edit(l.t, l.next, keys{"name": "last", "icc": false, "ipam.rangeStart": "10.83.0.40", "ipam.rangeEnd": "10.83.0.49"}))
					l.must(last.as("ADD"))
					l.closed("after ADD")
					l.must(last.as("DEL"))
					l.closed("after DEL")
				},
				"an ADD is refused": func(l lostGuard) {
					refused := attachment("bridge-ln", "r", l.netns("r"), edit(l.t, l.next, keys{"name": "last", "gatewayMode": "nat-unprotected", "ipam.rangeStart": "10.83.0.10", "ipam.rangeEnd": "10.83.0.10", "ipam.dataDir": "/run/elsewhere", "ipam.routes": raw(`[{"dst":"10.9.0.0/16","gw":"10.99.0.1"}]`)}))
					if r := l.run(refused.as("ADD")); r.code == 0 {
						l.t.Fatal("ADD succeeds: the test shows nothing")
					}
					l.closed("after ADD")
				},
			} {
				t.Run(damage+"/"+backend+"/"+event, func(t *testing.T) {
					t.Parallel()
					l := newLostGuard(t, backend)
					l.must(l.n.as("ADD"))
					l.closed("before")
					damaged(l.host)
					happens(l)
				})
			}
		}
	}
}

// What a container without a record asked for ends with it: the next call that
// changes the guard weakens it.
func TestLostGuardEnds(t *testing.T) {
	for _, damage := range []string{"attachment cut off", "attachment gone", "guard cut off", "guard gone"} {
		t.Run(damage, func(t *testing.T) {
			t.Parallel()
			l := newLostGuard(t, "nftables")
			damages[damage](l.host)
			l.must(l.n.as("ADD"))
			l.must(l.s.as("DEL"))
			l.must(l.n.as("DEL"))
			l.ping(netnsPath("world"), netip.MustParseAddr("10.83.0.20"))
		})
	}
}

// After a flush the STATUS of a network that has no rules puts a guard back whose
// container has no record.
func TestLostGuardHeals(t *testing.T) {
	for _, damage := range []string{"none", "attachment cut off", "attachment gone", "guard cut off", "guard gone", "network cut off"} {
		t.Run(damage, func(t *testing.T) {
			t.Parallel()
			l := newLostGuard(t, "nftables")
			damages[damage](l.host)
			l.nft("flush ruleset")
			l.must(call{plugin: "bridge-ln", command: "STATUS", stdin: l.open})
			l.closed("after STATUS")
		})
	}
}
