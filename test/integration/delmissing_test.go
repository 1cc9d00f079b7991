package integration

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"
)

// full is a network that leaves something of every kind: bridge, link, lease,
// record, and elements in each of the firewall's tables.
const full = `{
	"cniVersion": "1.1.0", "name": "net", "type": "bridge-ln",
	"bridge": "br0", "isDefaultGateway": true, "ipMasq": true, "icc": false, "macspoofchk": true,
	"ipam": {"type": "ipam-ln", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]]}
}`

const (
	leaseDir = "/var/lib/cni/networks/net"
	stateDir = "/run/libnet"
)

// missing is something that is not there any more when DEL comes.
type missing struct {
	name  string
	lose  func(h *host) // between ADD and DEL
	keys  keys          // of DEL's configuration that differ from ADD's
	call  func(c *call) // what else DEL is called with
	but   string        // what may differ afterwards, as a pattern
	noAdd bool          // the container was never attached
	after func(h *host) // holds besides
}

func TestDelWithMissing(t *testing.T) {
	for _, row := range missingRows() {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.test(t)
		})
	}
}

// test attaches a container beside one that stays, and takes it away, twice.
func (m missing) test(t *testing.T) {
	h := newHost(t)
	h.must(attachment("bridge-ln", "stays", h.netns("stays"), full).as("ADD"))
	before := h.snapshot()
	c := attachment("bridge-ln", "c1", h.netns("c1"), full)
	if !m.noAdd {
		c.stdin = edit(t, c.stdin, keys{"prevResult": raw(h.must(c.as("ADD")).stdout)})
		if len(h.snapshot().since(before)) < 7 {
			t.Fatalf("ADD changed only this:\n%v", h.snapshot().since(before))
		}
	}
	if m.lose != nil {
		m.lose(h)
	}
	c.stdin = edit(t, c.stdin, m.keys)
	if m.call != nil {
		m.call(&c)
	}
	for range 2 {
		h.must(c.as("DEL"))
		h.sameBut(before, m.but)
	}
	if m.after != nil {
		m.after(h)
	}
}

func missingRows() []missing {
	const staying = `10\.1\.0\.2 |fd01::2 |file /run/libnet/`
	return []missing{
		{name: "nothing"},
		{name: "the container was never attached", noAdd: true},
		{name: "the container and its netns", noAdd: true, lose: loseNetns},
		{name: "the netns", lose: loseNetns},
		{name: "the path of the netns", call: env("CNI_NETNS=")},
		{name: "the netns, and its path is a plain file", lose: func(h *host) {
			loseNetns(h)
			h.check(os.WriteFile(netnsPath("c1"), nil, 0o600))
		}},
		{name: "the netns, and its path is another's", lose: replaceNetns, after: eth0Stays(netnsPath("c1"))},
		{name: "the netns, and its path is the host's", lose: hostEth0, call: env("CNI_NETNS=/proc/self/ns/net"), but: `^(link|addr) (eth0|peer) |dev (eth0|peer) `, after: eth0Stays("")},
		{name: "the container, and its path is the host's", noAdd: true, lose: hostEth0, call: env("CNI_NETNS=/proc/self/ns/net"), but: `^(link|addr) (eth0|peer) |dev (eth0|peer) `, after: eth0Stays("")},
		{name: "the container, and its eth0 is another plugin's", noAdd: true, lose: foreignEth0, but: `^(link|addr) peer |dev peer `, after: eth0Stays(netnsPath("c1"))},
		{name: "the interface", lose: func(h *host) { h.in(netnsPath("c1"), func() { h.remove("eth0") }) }},
		{name: "the bridge", lose: func(h *host) { h.remove("br0") }, but: `^(link|addr) br0 |dev br0 `},
		{name: "the record", lose: func(h *host) { h.check(os.RemoveAll(stateDir)) }, but: `^file /run/libnet/`},
		{name: "the record and the netns", lose: func(h *host) { loseNetns(h); h.check(os.RemoveAll(stateDir)) }, but: `^file /run/libnet/`},
		{name: "the record and the path of the netns", lose: func(h *host) { h.check(os.RemoveAll(stateDir)) }, call: env("CNI_NETNS="), but: `^file /run/libnet/`},
		{name: "a record that can be read", lose: garbleRecord, but: `^file /run/libnet/.*corrupt`},
		{name: "the lease", lose: func(h *host) { h.check(os.Remove(leaseDir + "/10.1.0.3")) }},
		{name: "all leases", lose: func(h *host) { h.check(os.RemoveAll("/var/lib/cni/networks")) }, but: `^file /var/lib/cni/networks/`},
		{name: "the firewall's tables", lose: loseTables, but: `^nft `},
		{name: "everything", lose: loseAll, but: staying + `|^file /var/lib/cni|^nft |br0`},
		{name: "prevResult", keys: keys{"prevResult": nil}},
		{name: "a prevResult that can be read", keys: keys{"prevResult": "ok"}},
		{name: "a prevResult of a known version", keys: keys{"prevResult.cniVersion": "9.9.9"}},
		{name: "the ranges", keys: keys{"ipam.ranges": nil}},
		{name: "ranges that can be read", keys: keys{"ipam.ranges": "10.1.0.0/24"}},
		{name: "ranges that make sense", keys: sets(`[{"subnet":"10.1.0.77/8","rangeStart":"x"}]`)},
		{name: "the ipam section", keys: keys{"ipam": nil}},
		{name: "an ipam section that can be read", keys: keys{"ipam": "none"}},
		{name: "the data directory of ADD", keys: keys{"ipam.dataDir": "/run/elsewhere"}},
		{name: "the bridge of ADD", keys: keys{"bridge": "br7"}},
		{name: "the rules of ADD", keys: keys{"ipMasq": false, "icc": true, "macspoofchk": false}},
		{name: "settings that can be read", keys: keys{"mtu": "big", "vlan": "x", "isGateway": 7, "bridge": 3, "dns": "none"}},
		{name: "CNI_ARGS that can be read", call: env("CNI_ARGS=IP;=;;MAC")},
		{name: "the version of ADD", keys: keys{"cniVersion": "0.3.1"}},
	}
}

func loseNetns(h *host) { h.loseNetns("c1") }

// replaceNetns puts another namespace, with an eth0 of another owner, in the
// place of the container's.
func replaceNetns(h *host) {
	loseNetns(h)
	h.netns("c1")
	h.in(netnsPath("c1"), func() { hostEth0(h) })
}

func hostEth0(h *host) { h.check(netlink.LinkAdd(veth("eth0"))) }

func eth0Stays(ns string) func(*host) {
	return func(h *host) {
		h.in(ns, func() {
			if _, err := netlink.LinkByName("eth0"); err != nil {
				h.t.Errorf("eth0 of another owner: %v", err)
			}
		})
	}
}

func (h *host) remove(name string) {
	h.t.Helper()
	l, err := netlink.LinkByName(name)
	h.check(err)
	h.check(netlink.LinkDel(l))
}

func garbleRecord(h *host) {
	records, err := filepath.Glob(stateDir + "/networks/net/endpoints/c1*")
	h.check(err)
	if len(records) != 1 {
		h.t.Fatalf("records %v", records)
	}
	h.check(os.WriteFile(records[0], []byte(`{"Net`), 0o600))
}

func loseTables(h *host) { h.check(flushTables()) }

func loseAll(h *host) {
	loseNetns(h)
	loseTables(h)
	h.remove("br0")
	h.check(os.RemoveAll(stateDir))
	h.check(os.RemoveAll("/var/lib/cni/networks"))
}

func TestIPAMDelWithMissing(t *testing.T) {
	rows := []missing{
		{name: "nothing"},
		{name: "the container was never given any", noAdd: true},
		{name: "the netns", lose: loseNetns},
		{name: "the path of the netns", call: env("CNI_NETNS=")},
		{name: "the leases", lose: func(h *host) { h.check(os.RemoveAll("/var/lib/cni")) }, but: `^file /var/lib/cni/`},
		{name: "the lease", lose: func(h *host) { h.check(os.Remove(leaseDir + "/10.1.0.3")) }},
		{name: "our index", lose: func(h *host) { h.check(os.RemoveAll("/var/lib/cni/networks/.libnet")) }},
		{name: "the ranges", keys: keys{"ipam.ranges": nil}},
		{name: "ranges that can be read", keys: keys{"ipam.ranges": 7}},
		{name: "an ipam section that can be read", keys: keys{"ipam": "none"}},
		{name: "a prevResult that can be read", keys: keys{"prevResult": 7}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.testIPAM(t)
		})
	}
}

func (m missing) testIPAM(t *testing.T) {
	h := newHost(t)
	h.must(attachment("ipam-ln", "stays", h.netns("stays"), full).as("ADD"))
	before := h.snapshot()
	c := attachment("ipam-ln", "c1", h.netns("c1"), full)
	if !m.noAdd {
		h.must(c.as("ADD"))
	}
	if m.lose != nil {
		m.lose(h)
	}
	c.stdin = edit(t, c.stdin, m.keys)
	if m.call != nil {
		m.call(&c)
	}
	for range 2 {
		h.must(c.as("DEL"))
		h.sameBut(before, m.but)
	}
}
