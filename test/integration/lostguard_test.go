package integration

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	"attachment and guard gone": func(h *host) {
		h.lose(stateDir + "/networks/shut/endpoints/*.json")
		h.lose(stateDir + "/bridges/brl/shut:*.json")
	},
	"attachment and index gone": func(h *host) {
		h.lose(stateDir + "/networks/shut/endpoints/*.json")
		h.lose(stateDir + "/bridges/brl")
	},
	"network and index gone": func(h *host) { h.lose(stateDir + "/networks/shut/network.json"); h.lose(stateDir + "/bridges/brl") },
	"network and guard gone": func(h *host) {
		h.lose(stateDir + "/networks/shut/network.json")
		h.lose(stateDir + "/bridges/brl/shut:*.json")
	},
	"network and attachment gone": func(h *host) { h.lose(stateDir + "/networks/shut") },
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

// The guard that a container without a record asked for ends with the container: the next call
// that changes the guard weakens it.
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

// After a flush the STATUS of a network that has no rules, and an ADD with rules, put a
// guard back whose container has no record, also where several records of it are lost at once.
// Where the network's own record is lost, STATUS says that what it needs is not known.
func TestLostGuardHeals(t *testing.T) {
	for damage := range damages {
		for _, command := range []string{"STATUS", "ADD", "repair"} {
			t.Run(damage+"/"+command, func(t *testing.T) {
				t.Parallel()
				l := newLostGuard(t, "nftables")
				damages[damage](l.host)
				l.nft("flush ruleset")
				switch command {
				case "ADD":
					l.must(l.n.with(edit(t, l.next, keys{"ipMasq": true})).as("ADD"))
				case "repair":
					_ = exec.Command(program(t, "lnctl"), "repair").Run() // it may have to say what it cannot tell
				default:
					r := l.run(call{plugin: "bridge-ln", command: "STATUS", stdin: l.open})
					if untold := strings.HasPrefix(damage, "network "); r.code != 0 || untold != strings.Contains(r.stderr, `network "shut"`) {
						t.Errorf("STATUS: %+v", r)
					}
				}
				l.closed("after " + command)
			})
		}
	}
}

// Where no record tells any more that a bridge was closed, STATUS of another network
// and doctor name the bridge, before a flush and after it, and a repair that knows the
// configuration closes it.
func TestLostGuardTold(t *testing.T) {
	for name, flushed := range map[string]bool{"in place": false, "flushed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLostGuard(t, "nftables")
			for _, c := range []string{"o", "p"} {
				l.must(attachment("bridge-ln", c, netnsPath(c), l.open).as("DEL"))
			}
			l.leaves(l.open)
			l.lose(stateDir + "/networks/shut")
			l.lose(stateDir + "/bridges/brl")
			if flushed {
				l.nft("flush ruleset")
			}
			r := l.run(call{plugin: "bridge-ln", command: "STATUS", stdin: l.open})
			if r.code != 0 || !strings.Contains(r.stderr, `bridge brl: no record tells of s eth0 in network "shut"`) {
				t.Errorf("STATUS: %+v", r)
			}
			if said := l.doctor(); !strings.Contains(said, `s eth0 in network "shut" has a link`) || !strings.Contains(said, "on bridge brl") ||
				flushed != strings.Contains(said, `bridge brl: no record tells whether it was closed for s eth0 in network "shut"`) {
				t.Errorf("doctor:\n%s", said)
			}
			confs := t.TempDir()
			l.check(os.WriteFile(confs+"/shut.conf", []byte(l.shut), 0o600))
			l.exec(program(t, "lnctl"), "repair", "--conf-dir", confs)
			l.closed("after repair")
			if r := l.run(call{plugin: "bridge-ln", command: "STATUS", stdin: l.open}); r.code != 0 || r.stderr != "" {
				t.Errorf("STATUS after repair: %+v", r)
			}
		})
	}
}
