package integration

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// good is the configuration that the rows below spoil.
const good = `{
	"cniVersion": "1.1.0", "name": "net", "type": "bridge-ln",
	"bridge": "br0", "isGateway": true,
	"ipam": {"type": "ipam-ln", "ranges": [[{"subnet": "10.1.0.0/24"}]]}
}`

// The codes of the spec (1.1.0, section 5), and ours.
const (
	codeVersion     = 1
	codeUnsupported = 2
	codeEnv         = 4
	codeIO          = 5
	codeDecode      = 6
	codeConfig      = 7
	codeNetns       = 8
	codeExhausted   = 100
	codeTaken       = 101
)

type keys = map[string]any

// bad is one input that must be refused: good with keys edited, and what else
// is wrong. The error has the code and names key and value.
type bad struct {
	name  string
	keys  keys
	setup func(h *host) // before the first snapshot
	call  func(c *call)
	code  uint
	want  []string
}

func TestBadInput(t *testing.T) {
	rows := slices.Concat(badJSON(), badEnvironment(), badAddresses(), badPolicy(), badBridge(), badVerbs())
	if len(rows) < 40 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.test(t)
		})
	}
}

func (b bad) test(t *testing.T) {
	h := newHost(t)
	c := attachment("bridge-ln", "c1", h.netns("c1"), edit(t, good, b.keys)).as("ADD")
	if b.setup != nil {
		b.setup(h)
	}
	if b.call != nil {
		b.call(&c)
	}
	before := h.snapshot()
	r := h.run(c)
	if r.code != b.code {
		t.Errorf("code %d, want %d: %q", r.code, b.code, r.msg)
	}
	for _, want := range b.want {
		if !strings.Contains(r.msg, want) {
			t.Errorf("message %q does not name %s", r.msg, want)
		}
	}
	h.same(before)
}

// text replaces the whole configuration.
func text(conf string) func(*call) { return func(c *call) { c.stdin = conf } }

// env sets or overrides a variable.
func env(pair string) func(*call) { return func(c *call) { c.env = append(c.env, pair) } }

// sets is an ipam.ranges of range sets, each as written.
func sets(list ...string) keys { return keys{"ipam.ranges": raw("[" + strings.Join(list, ",") + "]")} }

func badJSON() []bad {
	return []bad{
		{name: "no configuration", call: text(""), code: codeDecode, want: []string{"JSON"}},
		{name: "malformed JSON", call: text(`{"cniVersion": "1.1.0", "name": "net"`), code: codeDecode, want: []string{"JSON"}},
		{name: "a list for the configuration", call: text(`[]`), code: codeConfig, want: []string{"configuration", "object"}},
		{name: "bridge is a number", keys: keys{"bridge": 7}, code: codeConfig, want: []string{"bridge", "7"}},
		{name: "isGateway is a string", keys: keys{"isGateway": "yes"}, code: codeConfig, want: []string{"isGateway", "yes"}},
		{name: "vlan is a string", keys: keys{"vlan": "ten"}, code: codeConfig, want: []string{"vlan", "ten"}},
		{name: "icc is a number", keys: keys{"icc": 0}, code: codeConfig, want: []string{"icc", "0"}},
		{name: "ipam is a string", keys: keys{"ipam": "ipam-ln"}, code: codeConfig, want: []string{"ipam", "ipam-ln"}},
		{name: "ranges is an object", keys: keys{"ipam.ranges": raw(`{}`)}, code: codeConfig, want: []string{"ipam.ranges", "list"}},
		{name: "subnet is a number", keys: sets(`[{"subnet":10}]`), code: codeConfig, want: []string{"ipam.ranges[0]", "subnet", "10"}},
		{name: "subnet of a flat list is a number", keys: sets(`{"subnet":10}`), code: codeConfig, want: []string{"ipam.ranges[0]", "subnet", "10"}},
		{name: "unknown version", keys: keys{"cniVersion": "9.9.9"}, code: codeVersion, want: []string{"cniVersion", "9.9.9"}},
		{name: "version is no version", keys: keys{"cniVersion": "one"}, code: codeVersion, want: []string{"cniVersion", "one"}},
		{name: "no name", keys: keys{"name": nil}, code: codeConfig, want: []string{"name", "missing"}},
		{name: "name with two dots", keys: keys{"name": "../net"}, code: codeConfig, want: []string{"name", "../net"}},
		{name: "name with a slash", keys: keys{"name": "a/b"}, code: codeConfig, want: []string{"name", "a/b"}},
		{name: "name too long", keys: keys{"name": strings.Repeat("n", 201)}, code: codeConfig, want: []string{"name", "nnn", "200"}},
	}
}

func badEnvironment() []bad {
	return []bad{
		{name: "unknown command", call: env("CNI_COMMAND=MOVE"), code: codeEnv, want: []string{"CNI_COMMAND", "MOVE"}},
		{name: "no container ID", call: env("CNI_CONTAINERID="), code: codeEnv, want: []string{"CNI_CONTAINERID", "missing"}},
		{name: "container ID with two dots", call: env("CNI_CONTAINERID=../c1"), code: codeEnv, want: []string{"CNI_CONTAINERID", "../c1"}},
		{name: "container ID with a slash", call: env("CNI_CONTAINERID=a/b"), code: codeEnv, want: []string{"CNI_CONTAINERID", "a/b"}},
		{name: "container ID too long", call: env("CNI_CONTAINERID=" + strings.Repeat("c", 250)), code: codeEnv, want: []string{"CNI_CONTAINERID", "ccc", "200"}},
		{name: "no interface name", call: env("CNI_IFNAME="), code: codeEnv, want: []string{"CNI_IFNAME", "missing"}},
		{name: "interface name with a slash", call: env("CNI_IFNAME=a/b"), code: codeEnv, want: []string{"CNI_IFNAME", "a/b"}},
		{name: "interface name too long", call: env("CNI_IFNAME=eth0123456789abc"), code: codeEnv, want: []string{"CNI_IFNAME", "eth0123456789abc"}},
		{name: "interface name is two dots", call: env("CNI_IFNAME=.."), code: codeEnv, want: []string{"CNI_IFNAME", ".."}},
		{name: "no netns", call: env("CNI_NETNS="), code: codeEnv, want: []string{"CNI_NETNS", "missing"}},
		{name: "netns does not exist", call: env("CNI_NETNS=/run/netns/none"), code: codeNetns, want: []string{"/run/netns/none"}},
		{name: "netns is a file", call: env("CNI_NETNS=/proc/version"), code: codeNetns, want: []string{"/proc/version"}},
		{name: "netns is a directory", call: env("CNI_NETNS=/run"), code: codeNetns, want: []string{"/run"}},
		{name: "netns is another kind of namespace", call: env("CNI_NETNS=/proc/self/ns/uts"), code: codeNetns, want: []string{"/proc/self/ns/uts"}},
		{name: "netns is the host's own", call: env("CNI_NETNS=/proc/self/ns/net"), code: codeNetns, want: []string{"/proc/self/ns/net", "own"}},
		{name: "CNI_ARGS without =", call: env("CNI_ARGS=IP"), code: codeEnv, want: []string{"CNI_ARGS", "IP"}},
		{name: "CNI_ARGS with two =", call: env("CNI_ARGS=IP=a=b"), code: codeEnv, want: []string{"CNI_ARGS", "IP=a=b"}},
		{name: "CNI_ARGS unknown", call: env("CNI_ARGS=COLOUR=red"), code: codeEnv, want: []string{"CNI_ARGS", "COLOUR"}},
		{name: "CNI_ARGS with a bad IP", call: env("CNI_ARGS=IP=10.1.0"), code: codeConfig, want: []string{"IP", "10.1.0"}},
		{name: "CNI_ARGS with a bad MAC", call: env("CNI_ARGS=MAC=zz"), code: codeConfig, want: []string{"MAC", "zz"}},
		{name: "interface name taken", setup: takeEth0, code: codeTaken, want: []string{"eth0"}},
		{name: "interface name taken by another plugin", setup: foreignEth0, code: codeTaken, want: []string{"eth0"}},
	}
}

func takeEth0(h *host) {
	h.in(netnsPath("c1"), func() {
		h.check(netlink.LinkAdd(veth("eth0")))
	})
}

// foreignEth0 is what a plugin without aliases makes: its host's end must
// survive that ADD failed.
func foreignEth0(h *host) {
	h.check(netlink.LinkAdd(veth("eth0")))
	h.moveIn("eth0", netnsPath("c1"))
}

func badAddresses() []bad {
	return []bad{
		{name: "no ranges", keys: sets(), code: codeConfig, want: []string{"ipam.ranges", "missing"}},
		{name: "an empty range set", keys: sets(`[]`), code: codeConfig, want: []string{"ranges[0]", "[]"}},
		{name: "no subnet", keys: sets(`[{"gateway":"10.1.0.1"}]`), code: codeConfig, want: []string{"ipam.ranges[0][0].subnet", "missing"}},
		{name: "bad CIDR", keys: sets(`[{"subnet":"10.1.0.0/33"}]`), code: codeConfig, want: []string{"ipam.ranges[0][0].subnet", "10.1.0.0/33"}},
		{name: "subnet with host bits", keys: sets(`[{"subnet":"10.1.0.7/24"}]`), code: codeConfig, want: []string{"subnet", "10.1.0.7/24"}},
		{name: "subnet without a length", keys: sets(`[{"subnet":"10.1.0.0"}]`), code: codeConfig, want: []string{"subnet", "10.1.0.0"}},
		{name: "bad gateway", keys: sets(`[{"subnet":"10.1.0.0/24","gateway":"none"}]`), code: codeConfig, want: []string{"ipam.ranges[0][0].gateway", "none"}},
		{name: "gateway outside", keys: with(sets(`[{"subnet":"10.1.0.0/24","gateway":"10.2.0.1"}]`), "isDefaultGateway", true), code: codeConfig, want: []string{"10.2.0.1"}},
		{name: "gateway outside, no default route", keys: sets(`[{"subnet":"10.1.0.0/24","gateway":"10.2.0.1"}]`), code: codeConfig, want: []string{"ipam.ranges[0][0].gateway", "10.2.0.1", "10.1.0.0/24"}},
		{name: "gateway is the broadcast address", keys: sets(`[{"subnet":"10.1.0.0/24","gateway":"10.1.0.255"}]`), code: codeConfig, want: []string{"ipam.ranges[0][0].gateway", "10.1.0.255"}},
		{name: "gateway is the network address", keys: sets(`[{"subnet":"10.1.0.0/24","gateway":"10.1.0.0"}]`), code: codeConfig, want: []string{"ipam.ranges[0][0].gateway", "10.1.0.0"}},
		{name: "subnet of the host itself", keys: sets(`[{"subnet":"127.1.0.0/24"}]`), code: codeConfig, want: []string{"ipam.ranges[0][0].subnet", "127.1.0.0/24"}},
		{name: "subnet of multicast", keys: sets(`[{"subnet":"239.1.0.0/24"}]`), code: codeConfig, want: []string{"ipam.ranges[0][0].subnet", "239.1.0.0/24"}},
		{name: "subnet of link-local addresses", keys: sets(`[{"subnet":"fe80::/64"}]`), code: codeConfig, want: []string{"ipam.ranges[0][0].subnet", "fe80::/64"}},
		{name: "gateway of the other family", keys: sets(`[{"subnet":"10.1.0.0/24","gateway":"fd00::1"}]`), code: codeConfig, want: []string{"gateway", "fd00::1"}},
		{name: "rangeStart after rangeEnd", keys: sets(`[{"subnet":"10.1.0.0/24","rangeStart":"10.1.0.9","rangeEnd":"10.1.0.5"}]`), code: codeConfig, want: []string{"10.1.0.9", "10.1.0.5"}},
		{name: "rangeStart outside", keys: sets(`[{"subnet":"10.1.0.0/24","rangeStart":"10.2.0.9"}]`), code: codeConfig, want: []string{"10.2.0.9"}},
		{name: "rangeEnd outside", keys: sets(`[{"subnet":"10.1.0.0/24","rangeEnd":"10.2.0.9"}]`), code: codeConfig, want: []string{"10.2.0.9"}},
		{name: "overlapping ranges", keys: sets(`[{"subnet":"10.1.0.0/24"},{"subnet":"10.1.0.0/25"}]`), code: codeConfig, want: []string{"ranges[0][1]", "overlap", "10.1.0.126"}},
		{name: "overlapping range sets", keys: sets(`[{"subnet":"10.1.0.0/24"}]`, `[{"subnet":"10.1.0.0/16"}]`), code: codeConfig, want: []string{"ranges[1][0]", "overlap", "10.1.255.254"}},
		{name: "both families in one range set", keys: sets(`[{"subnet":"10.1.0.0/24"},{"subnet":"fd00::/64"}]`), code: codeConfig, want: []string{"fd00::/64"}},
		{name: "two addresses of a family before 0.3.0", keys: with(sets(`[{"subnet":"10.1.0.0/24"}]`, `[{"subnet":"10.2.0.0/24"}]`), "cniVersion", "0.2.0"), code: codeConfig, want: []string{"cniVersion", "0.2.0"}},
		{name: "route to garbage", keys: keys{"ipam.routes": raw(`[{"dst":"away"}]`)}, code: codeConfig, want: []string{"ipam.routes[0]", "away"}},
		{name: "route without dst", keys: keys{"ipam.routes": raw(`[{"gw":"10.1.0.1"}]`)}, code: codeConfig, want: []string{"ipam.routes[0].dst", "missing"}},
		{name: "route over an unreachable gateway", keys: keys{"ipam.routes": raw(`[{"dst":"10.9.0.0/16","gw":"10.8.0.1"}]`)}, code: codeConfig, want: []string{"10.9.0.0/16", "10.8.0.1"}},
		{name: "resolvConf is missing", keys: keys{"ipam.resolvConf": "/etc/none.conf"}, code: codeConfig, want: []string{"ipam.resolvConf", "/etc/none.conf"}},
		{name: "requested address is garbage", keys: keys{"runtimeConfig.ips": []string{"ten"}}, code: codeConfig, want: []string{"runtimeConfig.ips", "ten"}},
		{name: "requested address is outside", keys: keys{"runtimeConfig.ips": []string{"10.7.0.5/24"}}, code: codeConfig, want: []string{"10.7.0.5"}},
		{name: "requested address is the gateway's", keys: keys{"args.cni.ips": []string{"10.1.0.1"}}, code: codeConfig, want: []string{"10.1.0.1"}},
		{name: "requested address is taken", setup: other, keys: keys{"runtimeConfig.ips": []string{"10.1.0.2"}}, code: codeTaken, want: []string{"10.1.0.2", "other"}},
		{name: "pool is exhausted", setup: other, keys: sets(`[{"subnet":"10.1.0.0/24","rangeStart":"10.1.0.2","rangeEnd":"10.1.0.2"}]`), code: codeExhausted, want: []string{"10.1.0.2"}},
		{name: "unknown ipam plugin", keys: keys{"ipam.type": "dhcp6"}, code: codeConfig, want: []string{"ipam.type", "dhcp6"}},
		{name: "ipam plugin with a path", keys: keys{"ipam.type": "../ipam-ln"}, code: codeConfig, want: []string{"ipam.type", "../ipam-ln"}},
		{name: "ipam plugin that refuses", keys: keys{"ipam.type": "host-local", "ipam.ranges": nil}, code: 999, want: []string{"host-local"}},
		{name: "data directory is a file", setup: dataDirIsFile, keys: keys{"ipam.dataDir": "/run/data"}, code: codeIO, want: []string{"/run/data"}},
		{name: "data directory is read-only", setup: readOnly("/var/lib/cni/networks"), code: codeIO, want: []string{"/var/lib/cni/networks", "read-only"}},
		{name: "state directory is read-only", setup: readOnly("/run/libnet"), code: codeIO, want: []string{"/run/libnet", "read-only"}},
	}
}

// raw is JSON as it stands.
type raw string

// MarshalJSON returns it.
func (r raw) MarshalJSON() ([]byte, error) { return []byte(r), nil }

func with(k keys, key string, value any) keys { k[key] = value; return k }

// other attaches another container to the network; it gets 10.1.0.2.
func other(h *host) {
	h.must(attachment("bridge-ln", "other", h.netns("other"), good).as("ADD"))
}

func dataDirIsFile(h *host) { h.check(os.WriteFile("/run/data", nil, 0o600)) }

func readOnly(dir string) func(*host) {
	return func(h *host) {
		h.check(os.MkdirAll(dir, 0o755))
		h.check(unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RDONLY, ""))
	}
}

func badBridge() []bad {
	return []bad{
		{name: "bridge name with a slash", keys: keys{"bridge": "a/b"}, code: codeConfig, want: []string{"bridge", "a/b"}},
		{name: "bridge name too long", keys: keys{"bridge": "br0123456789abcd"}, code: codeConfig, want: []string{"bridge", "br0123456789abcd"}},
		{name: "bridge name is all", keys: keys{"bridge": "all"}, code: codeConfig, want: []string{"bridge", "all"}},
		{name: "bridge name is default", keys: keys{"bridge": "default"}, code: codeConfig, want: []string{"bridge", "default"}},
		{name: "bridge name is lo", keys: keys{"bridge": "lo"}, code: codeConfig, want: []string{"bridge", "lo"}},
		{name: "VLAN interface's name too long", keys: keys{"bridge": "br0123456789", "vlan": 100}, code: codeConfig, want: []string{"vlan", "100", "bridge", "br0123456789"}},
		{name: "forced, over the host's own address", setup: addressed, keys: keys{"forceAddress": true}, code: codeConfig, want: []string{"br0", "10.1.0.99/24", "10.1.0.1/24"}},
		{name: "isolated, on the host's own bridge", setup: addressed, keys: keys{"gatewayMode": "isolated", "isGateway": nil}, code: codeConfig, want: []string{"br0", "10.1.0.99/24"}},
		{name: "bridge name held by a non-bridge", setup: nonBridge("br0"), code: codeConfig, want: []string{"br0", "bridge"}},
		{name: "bridge has another address", setup: addressed, code: codeConfig, want: []string{"br0", "10.1.0.99/24", "10.1.0.1/24"}},
		{name: "MTU too small", keys: keys{"mtu": 67}, code: codeConfig, want: []string{"mtu", "67"}},
		{name: "MTU too large", keys: keys{"mtu": 70000}, code: codeConfig, want: []string{"mtu", "70000"}},
		{name: "MTU negative", keys: keys{"mtu": -1}, code: codeConfig, want: []string{"mtu", "-1"}},
		{name: "MTU is a word", keys: keys{"mtu": "big"}, code: codeConfig, want: []string{"mtu", "big"}},
		{name: "MTU too small for IPv6", keys: with(sets(`[{"subnet":"fd00::/64"}]`), "mtu", 1279), code: codeConfig, want: []string{"mtu", "1279", "1280"}},
		{name: "VLAN too large", keys: keys{"vlan": 5000}, code: codeConfig, want: []string{"vlan", "5000"}},
		{name: "VLAN negative", keys: keys{"vlan": -1}, code: codeConfig, want: []string{"vlan", "-1"}},
		{name: "VLAN without the kernel's help", setup: noFiltering, keys: keys{"vlan": 100}, code: codeUnsupported, want: []string{"vlan", "100"}},
		{name: "trunk without the kernel's help", setup: noFiltering, keys: keys{"vlanTrunk": raw(`[{"minID":5,"maxID":9}]`)}, code: codeUnsupported, want: []string{"vlanTrunk", "5-9"}},
		{name: "trunk with one end", keys: keys{"vlanTrunk": raw(`[{"minID":5}]`)}, code: codeConfig, want: []string{"vlanTrunk[0]", "minID"}},
		{name: "trunk upside down", keys: keys{"vlanTrunk": raw(`[{"minID":9,"maxID":5}]`)}, code: codeConfig, want: []string{"vlanTrunk[0]", "9-5"}},
		{name: "hairpin and promiscuous", keys: keys{"hairpinMode": true, "promiscMode": true}, code: codeConfig, want: []string{"hairpinMode", "promiscMode"}},
		{name: "internal and masquerade", keys: keys{"internal": true, "ipMasq": true}, code: codeConfig, want: []string{"internal", "ipMasq"}},
		{name: "internal and default gateway", keys: keys{"internal": true, "isDefaultGateway": true}, code: codeConfig, want: []string{"internal", "isDefaultGateway"}},
		{name: "interface down, with addresses", keys: keys{"disableContainerInterface": true}, code: codeConfig, want: []string{"disableContainerInterface", "ipam"}},
		{name: "misspelt key, strict", keys: keys{"gatewaymod": "nat", "strict": true}, code: codeConfig, want: []string{"gatewaymod", "nat", "gatewayMode"}},
		{name: "misspelt key of a range, strict", keys: with(sets(`[{"subnet":"10.1.0.0/24","rangeStrat":"10.1.0.9"}]`), "strict", true), code: codeConfig, want: []string{"ipam.ranges[0][0].rangeStrat", "10.1.0.9", "rangeStart"}},
		{name: "another plugin's key, strict", keys: keys{"isolated": true, "strict": true}, code: codeConfig, want: []string{"isolated", "true", "overlay-ln"}},
		{name: "one key in two spellings, strict", keys: keys{"bridge": "br0", "BRIDGE": "br1", "strict": true}, code: codeConfig, want: []string{"br0", "bridge", "twice"}},
		{name: "strict is a word", keys: keys{"strict": "yes"}, code: codeConfig, want: []string{"strict", "yes"}},
		{name: "unknown masquerade backend", keys: keys{"ipMasqBackend": "pf"}, code: codeConfig, want: []string{"ipMasqBackend", "pf"}},
		{name: "bad MAC", keys: keys{"runtimeConfig.mac": "02:00:00"}, code: codeConfig, want: []string{"runtimeConfig.mac", "02:00:00"}},
		{name: "multicast MAC", keys: keys{"args.cni.mac": "01:00:5e:00:00:01"}, code: codeConfig, want: []string{"args.cni.mac", "01:00:5e:00:00:01"}},
		{name: "no address in a version that needs one", keys: keys{"cniVersion": "0.2.0", "ipam": nil}, code: codeConfig, want: []string{"cniVersion", "0.2.0"}},
	}
}

// veth is an interface that every kernel has which can run containers.
func veth(name string) netlink.Link {
	return &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "peer"}
}

func nonBridge(name string) func(*host) {
	return func(h *host) {
		h.check(netlink.LinkAdd(veth(name)))
	}
}

// addressed is a bridge of another owner, with an address of our subnet.
func addressed(h *host) {
	h.check(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}))
	h.setAddress("", "br0", "10.1.0.99/24")
}

// noFiltering skips the row where the kernel can filter VLANs.
func noFiltering(h *host) {
	yes := true
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "probe"}, VlanFiltering: &yes}
	if err := netlink.LinkAdd(br); err != nil {
		return
	}
	l, err := netlink.LinkByName("probe")
	h.check(err)
	h.check(netlink.LinkDel(l))
	if b, ok := l.(*netlink.Bridge); ok && b.VlanFiltering != nil && *b.VlanFiltering {
		h.t.Skip("this kernel filters VLANs")
	}
}

func badVerbs() []bad {
	check := env("CNI_COMMAND=CHECK")
	return []bad{
		{name: "a MAC check by iptables", keys: keys{"macspoofchk": true, "backend": "iptables"}, code: codeConfig, want: []string{"macspoofchk", "backend", "nftables"}},
		{name: "CHECK without prevResult", call: check, code: codeConfig, want: []string{"prevResult", "missing"}},
		{name: "CHECK with a null prevResult", call: check, keys: keys{"prevResult": raw("null")}, code: codeConfig, want: []string{"prevResult", "missing"}},
		{name: "CHECK with a garbled prevResult", call: check, keys: keys{"prevResult": "ok"}, code: codeDecode, want: []string{"prevResult"}},
		{name: "CHECK of another interface", call: check, keys: keys{"prevResult": prevResult("eth9")}, code: codeConfig, want: []string{"prevResult", "eth0"}},
		{name: "CHECK of what is not there", call: check, keys: keys{"prevResult": prevResult("eth0")}, code: 103, want: []string{"eth0"}},
		{name: "CHECK on 0.3.1", call: check, keys: keys{"cniVersion": "0.3.1"}, code: codeVersion, want: []string{"0.3.1", "CHECK", "0.4.0"}},
		{name: "GC on 1.0.0", call: env("CNI_COMMAND=GC"), keys: keys{"cniVersion": "1.0.0"}, code: codeVersion, want: []string{"1.0.0", "GC", "1.1.0"}},
		{name: "GC with a garbled list", call: env("CNI_COMMAND=GC"), keys: keys{"cni.dev/valid-attachments": "all"}, code: codeConfig, want: []string{"all"}},
		{name: "STATUS on 1.0.0", call: env("CNI_COMMAND=STATUS"), keys: keys{"cniVersion": "1.0.0"}, code: codeVersion, want: []string{"1.0.0", "STATUS", "1.1.0"}},
		{name: "STATUS with the bridge's name held", call: env("CNI_COMMAND=STATUS"), setup: nonBridge("br0"), code: 50, want: []string{"br0"}},
		{name: "STATUS with a read-only state directory", call: env("CNI_COMMAND=STATUS"), setup: readOnly("/run/libnet"), code: 50, want: []string{"/run/libnet"}},
		{name: "ipam-ln without ipam", call: ipamOnly, keys: keys{"ipam": nil}, code: codeConfig, want: []string{"ipam", "missing"}},
		{name: "ipam-ln with a bad subnet", call: ipamOnly, keys: sets(`[{"subnet":"here"}]`), code: codeConfig, want: []string{"subnet", "here"}},
	}
}

func ipamOnly(c *call) { c.plugin = "ipam-ln" }

func prevResult(ifName string) raw {
	return raw(fmt.Sprintf(`{"cniVersion":"1.1.0","interfaces":[{"name":"br0"},{"name":"veth0"},{"name":%q,"mac":%q,"sandbox":%q}],
		"ips":[{"address":"10.1.0.2/24","gateway":"10.1.0.1","interface":2}]}`, ifName, net.HardwareAddr{2, 0, 0, 0, 0, 1}, netnsPath("c1")))
}
