package integration

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// allKeys are the keys of a plugin's configuration that an admin can edit
// between ADD and DEL. The name, the version and GC's list are not among them:
// they say what the call is about.
var allKeys = map[string][]string{
	"bridge-ln": {
		"bridge", "isGateway", "isDefaultGateway", "forceAddress", "ipMasq", "ipMasqBackend", "hairpinMode", "promiscMode", "vlan",
		"preserveDefaultVlan", "vlanTrunk", "macspoofchk", "enabledad", "disableContainerInterface", "portIsolation", "mtu", "dns",
		"internal", "icc", "snat", "masqAll", "backend", "gatewayMode", "snatIPv4", "snatIPv6", "trustedInterfaces", "acceptFwMark",
		"ingressPolicy", "stateDir", "ipam", "capabilities", "runtimeConfig", "args", "prevResult", "disableCheck",
		"ipam.type", "ipam.subnet", "ipam.ranges", "ipam.rangeStart", "ipam.gateway", "ipam.routes", "ipam.dataDir", "ipam.resolvConf",
		"ipam.exclude", "ipam.auxAddresses", "ipam.strategy", "ipam.rebootPolicy", "ipam.cooldown", "ipam.sticky", "ipam.warnAt",
	},
	"overlay-ln": {
		"bridge", "nodes", "subnet", "blockSize", "vni", "port", "device", "isolated", "gatewayMode", "internal", "mtu", "backend",
		"stateDir", "ipam", "runtimeConfig", "prevResult", "ipam.type", "ipam.dataDir", "ipam.rebootPolicy", "ipam.cooldown",
	},
	"portmap-ln": {
		"snat", "masqAll", "backend", "conditionsV4", "conditionsV6", "markMasqBit", "externalSetMarkChain", "stateDir", "capabilities",
		"runtimeConfig", "runtimeConfig.portMappings", "prevResult",
	},
	"ipam-ln": {
		"ipam", "runtimeConfig", "args", "prevResult", "ipam.type", "ipam.subnet", "ipam.ranges", "ipam.rangeStart", "ipam.gateway",
		"ipam.routes", "ipam.resolvConf", "ipam.exclude", "ipam.auxAddresses", "ipam.strategy", "ipam.rebootPolicy", "ipam.cooldown",
		"ipam.sticky", "ipam.warnAt",
	},
}

// wrong are values that no key takes, or that mean something else than ADD's.
// Of a key that DEL and GC do not read, the first few are tried; LIBNET_EDITED=full
// tries all.
var wrong = []any{
	5, "a/b", raw(`[5,[{}],"x"]`), -1, true, nil, "", "…", strings.Repeat("long", 99), "\x00", "/dev/null/x", raw(`1e99`), raw(`{}`), raw(`{"type":5,"ipv4":[]}`),
}

var readByDel = []string{
	"bridge", "backend", "ipMasqBackend", "stateDir", "ipam", "ipam.type", "ipam.dataDir", "ipam.rebootPolicy", "ipam.cooldown", "conditionsV4", "prevResult", "nodes",
}

// DEL and GC look at nothing that was edited after ADD but at what ADD
// recorded: whatever a key says now, all that ADD made goes.
func TestEditedAfterAdd(t *testing.T) {
	for plugin, keys := range allKeys {
		t.Run(plugin, func(t *testing.T) {
			t.Parallel()
			e := newEdited(t, plugin)
			for i, key := range keys {
				values := wrong
				if !slices.Contains(readByDel, key) && os.Getenv("LIBNET_EDITED") != "full" {
					values = wrong[i%2 : i%2+2]
				}
				for _, value := range values {
					e.check(key, value)
				}
			}
		})
	}
}

// edited is a host on which ADD, DEL and GC of one call work.
type edited struct {
	h                 *host
	add               call
	afterDel, afterGC snapshot
	del               bool // the next one is DEL, not GC
}

func newEdited(t *testing.T, plugin string) *edited {
	h := newHost(t)
	e := &edited{h: h, add: h.editable(plugin).as("ADD")}
	h.must(e.add)
	h.must(e.add.as("DEL"))
	e.afterDel = h.snapshot()
	h.must(e.gc(e.add.stdin))
	e.afterGC = h.snapshot()
	return e
}

func (e *edited) gc(conf string) call {
	return call{plugin: e.add.plugin, command: "GC", stdin: edit(e.h.t, conf, map[string]any{"cni.dev/valid-attachments": []string{}})}
}

// check takes away by a spoiled configuration what a good one made, by DEL and
// by GC in turn.
func (e *edited) check(key string, value any) {
	h, t := e.h, e.h.t
	t.Helper()
	spoiled := edit(t, e.add.stdin, map[string]any{key: value})
	what, before, again := "GC", e.afterGC, e.gc(spoiled)
	if e.del = !e.del; e.del {
		what, before, again = "DEL", e.afterDel, e.add.with(spoiled).as("DEL")
	}
	h.must(e.add)
	if r := h.run(again); r.code != 0 {
		t.Errorf("%s with %s = %.40q: code %d: %s", what, key, value, r.code, r.msg)
	}
	left := h.snapshot().since(before).without(` fe80::`) // of a bridge made anew
	if key == "stateDir" && value == "/dev/null/x" {
		left = left.without(`^file /run/libnet/`) // where the records are is not to be known
	}
	if len(left) > 0 {
		t.Errorf("%s with %s = %.40q left\n%s", what, key, value, strings.Join(left, "\n"))
	}
	if len(left) > 0 || key == "stateDir" {
		h.must(e.add.as("DEL"))
		h.must(e.gc(e.add.stdin))
	}
}

// editable returns a call of a plugin whose ADD makes something of each kind.
func (h *host) editable(plugin string) call {
	h.t.Helper()
	const ports = `{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}`
	ns := h.netns("c1")
	switch plugin {
	case "overlay-ln":
		up := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "up"}, PeerName: "far"}
		h.check(netlink.LinkAdd(up))
		addr, err := netlink.ParseAddr("192.0.2.1/24")
		h.check(err)
		h.check(netlink.AddrAdd(up, addr))
		h.check(netlink.LinkSetUp(up))
		return attachment(plugin, "c1", ns, `{"cniVersion":"1.1.0","name":"net","type":"overlay-ln","nodes":["192.0.2.1","192.0.2.2"],"subnet":"10.5.0.0/16","runtimeConfig":`+ports+`}`)
	case "portmap-ln":
		prev := h.must(attachment("bridge-ln", "c1", ns, full).as("ADD")).stdout
		return attachment(plugin, "c1", ns, fmt.Sprintf(`{"cniVersion":"1.1.0","name":"pub","type":"portmap-ln","runtimeConfig":%s,"prevResult":%s}`, ports, prev))
	}
	return attachment(plugin, "c1", ns, edit(h.t, full, map[string]any{"runtimeConfig": raw(ports)}))
}
