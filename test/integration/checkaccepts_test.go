package integration

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// othersWork is what another plugin, udev or the container's administrator may
// do after ADD, as they do it in real life.
type othersWork struct {
	name string
	// chained is the configuration of a plugin behind ours; nil: do is it.
	chained keys
	do      func(h *host, host, eth0 netlink.Link)
}

func othersWorks() []othersWork {
	both := func(name string, set func(netlink.Link) error) othersWork {
		return othersWork{name: name, do: func(h *host, host, eth0 netlink.Link) {
			h.check(set(host))
			h.in(netnsPath("c1"), func() { h.check(set(eth0)) })
		}}
	}
	return []othersWork{
		{name: "tuning: mtu", chained: keys{"type": "tuning", "mtu": 1400}},
		{name: "tuning: mac", chained: keys{"type": "tuning", "mac": "02:00:00:00:00:99"}},
		{name: "tuning: promisc, allmulti, queue", chained: keys{"type": "tuning", "promisc": true, "allmulti": true, "txQLen": 77}},
		{name: "tuning: sysctl", chained: keys{"type": "tuning", "sysctl": keys{"net.ipv4.conf.IFNAME.arp_filter": "1"}}},
		{name: "sbr", chained: keys{"type": "sbr"}},
		both("MTU by udev", func(l netlink.Link) error { return netlink.LinkSetMTU(l, 1450) }),
		both("queue by udev", func(l netlink.Link) error { return netlink.LinkSetTxQLen(l, 500) }),
		both("alternative name", func(l netlink.Link) error { return netlink.LinkAddAltName(l, "alternative-"+l.Attrs().Name) }),
		{name: "more addresses and routes", do: func(h *host, _, eth0 netlink.Link) {
			h.in(netnsPath("c1"), func() {
				a, err := netlink.ParseAddr("10.99.0.1/24")
				h.check(err)
				h.check(netlink.AddrAdd(eth0, a))
				to, err := netlink.ParseIPNet("10.98.0.0/24")
				h.check(err)
				h.check(netlink.RouteAdd(&netlink.Route{Dst: to, LinkIndex: eth0.Attrs().Index, Priority: 5}))
			})
		}},
		{name: "MTU of the default route", do: func(h *host, _, eth0 netlink.Link) {
			h.in(netnsPath("c1"), func() {
				routes, err := netlink.RouteList(eth0, unix.AF_INET)
				h.check(err)
				for _, r := range routes {
					if r.Gw != nil {
						r.MTU = 1300
						h.check(netlink.RouteReplace(&r))
					}
				}
			})
		}},
	}
}

// Changes that others rightly make after ADD are no difference: CHECK is green with
// the chain's result, and a repeated ADD leaves the attachment alone.
func TestCheckAccepts(t *testing.T) {
	for _, work := range othersWorks() {
		for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
			t.Run(work.name+"/"+version, func(t *testing.T) {
				t.Parallel()
				work.test(t, version)
			})
		}
	}
}

func (o othersWork) test(t *testing.T, version string) {
	h := newHost(t)
	conf := edit(t, severalNet(t, "a", "dual", nil), keys{"cniVersion": version})
	ours := attachment("bridge-ln", "c1", h.netns("c1"), conf)
	first := h.must(ours.as("ADD")).stdout
	result := first
	if o.chained != nil {
		behind := edit(t, conf, keys{"ipam": nil, "bridge": nil, "isDefaultGateway": nil, "prevResult": raw(first)})
		r := h.run(attachment(o.chained["type"].(string), "c1", netnsPath("c1"), edit(t, behind, o.chained)).as("ADD"))
		if r.code != 0 { // sbr logs on stderr
			t.Fatalf("%s: code %d: %s", o.name, r.code, r.msg)
		}
		result = r.stdout
	} else {
		hostEnd, err := netlink.LinkByName(h.hostEnd())
		h.check(err)
		var eth0 netlink.Link
		h.in(netnsPath("c1"), func() {
			eth0, err = netlink.LinkByName("eth0")
			h.check(err)
		})
		o.do(h, hostEnd, eth0)
	}
	links := h.indexes(netnsPath("c1"))
	h.must(ours.with(edit(t, conf, keys{"prevResult": raw(result)})).as("CHECK"))
	if diff := cmp.Diff(first, h.must(ours.as("ADD")).stdout); diff != "" {
		t.Errorf("a repeated ADD (-first +second):\n%s", diff)
	}
	if now := h.indexes(netnsPath("c1")); now != links {
		t.Errorf("a repeated ADD made the link anew: %s before, %s now", links, now)
	}
	if said := h.doctor(); strings.Contains(said, "differ") {
		t.Errorf("doctor: %s", said)
	}
	h.must(ours.as("DEL"))
}

// doctor returns what lnctl doctor says, whatever it thinks of the host.
func (h *host) doctor() string {
	h.t.Helper()
	out, err := exec.Command(program(h.t, "lnctl"), "doctor").CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || !strings.Contains(string(out), "attachments") {
		h.t.Fatalf("lnctl doctor: %v: %s", err, out)
	}
	return string(out)
}
