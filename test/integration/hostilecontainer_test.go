package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hostile is what a container does that rules over its own namespace.
type hostile struct {
	name string
	do   func(h *host) // in the container's namespace
	find string        // what CHECK then names; empty: it passes
}

// TestHostileContainer has a container do its worst. Its neighbour is as
// before, others come and go, and DEL leaves nothing of it.
func TestHostileContainer(t *testing.T) {
	for _, row := range hostileRows() {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.test(t)
		})
	}
}

func (r hostile) test(t *testing.T) {
	h := newHost(t)
	stays := attachment("bridge-ln", "stays", h.netns("stays"), full)
	stays.stdin = edit(t, full, keys{"prevResult": raw(h.must(stays.as("ADD")).stdout)})
	more := attachment("bridge-ln", "more", h.netns("more"), full)
	before := h.snapshot()
	c := attachment("bridge-ln", "c1", h.netns("c1"), full)
	c.stdin = edit(t, full, keys{"prevResult": raw(h.must(c.as("ADD")).stdout)})
	h.in(c.netns, func() { r.do(h) })
	if r.find == "" {
		h.must(c.as("CHECK"))
	} else {
		h.refused(c.as("CHECK"), 103, r.find)
	}
	if a := parseResult(t, h.must(more.as("ADD")).stdout).addresses(t)[0].Addr(); a == netip.MustParseAddr("10.1.0.3") {
		t.Errorf("another one was given %s, which c1 holds", a)
	}
	h.must(stays.as("CHECK"))
	h.ping("", netip.MustParseAddr("10.1.0.2"))
	h.must(more.as("DEL"))
	for range 2 {
		h.must(c.as("DEL"))
		h.same(before)
	}
	h.must(stays.as("CHECK"))
}

func hostileRows() []hostile {
	return []hostile{
		{name: "renames its interface", do: func(h *host) { h.rename() }, find: "eth0"},
		{name: "renames it, and makes another of its name", do: func(h *host) {
			h.rename()
			h.check(netlink.LinkAdd(veth("eth0")))
		}, find: "eth0"},
		{name: "deletes its interface", do: func(h *host) { h.remove("eth0") }, find: "eth0"},
		{name: "moves it to a namespace that it made", do: func(h *host) {
			h.moveIn("eth0", h.hidden())
		}, find: "eth0"},
		{name: "moves it, with another name", do: func(h *host) {
			h.rename()
			h.moveIn("other0", h.hidden())
		}, find: "eth0"},
		{name: "takes its interface down", do: func(h *host) { h.check(netlink.LinkSetDown(h.link("eth0"))) }, find: "eth0"},
		{name: "gives it another MAC address", do: func(h *host) {
			h.check(netlink.LinkSetHardwareAddr(h.link("eth0"), net.HardwareAddr{2, 9, 9, 9, 9, 9}))
		}, find: "02:09:09:09:09:09"},
		{name: "gives it another MTU", do: func(h *host) { h.check(netlink.LinkSetMTU(h.link("eth0"), 1300)) }}, // as tuning does
		{name: "claims the default route, and locks its routes", do: func(h *host) {
			h.check(netlink.LinkSetAlias(h.link("eth0"), "libnet gwPriority=2147483647 internal=false network=a"))
			own, err := os.Open("/proc/thread-self/ns/net")
			h.check(err)
			h.check(unix.Flock(int(own.Fd()), unix.LOCK_EX))
			h.t.Cleanup(func() { _ = own.Close() })
		}},
		{name: "removes its address", do: func(h *host) {
			a, err := netlink.ParseAddr("10.1.0.3/24")
			h.check(err)
			h.check(netlink.AddrDel(h.link("eth0"), a))
		}, find: "10.1.0.3"},
		{name: "takes its neighbour's and the gateway's address", do: func(h *host) { h.addresses("10.1.0.2/24", "10.1.0.1/24", "fd01::2/64") }},
		{name: "takes all addresses", do: func(h *host) {
			for i := range 250 {
				h.addresses(fmt.Sprintf("10.1.0.%d/32", 4+i))
			}
		}},
		{name: "calls its interface its neighbour's", do: func(h *host) {
			h.check(netlink.LinkSetAlias(h.link("eth0"), "libnet:net/stays/eth0"))
		}},
		{name: "makes links with the names and aliases of the host's", do: func(h *host) {
			h.check(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}))
			h.check(netlink.LinkSetAlias(h.link("br0"), "libnet:net/"))
			h.check(netlink.LinkAdd(veth("copy")))
			h.check(netlink.LinkSetAlias(h.link("copy"), "libnet:net/stays/eth0"))
		}},
		{name: "makes its interface a port of a bridge of its own", do: func(h *host) {
			h.check(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "inner"}}))
			h.check(netlink.LinkSetMaster(h.link("eth0"), h.link("inner")))
		}},
		{name: "makes 200 links", do: func(h *host) {
			for i := range 100 {
				h.check(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("a%d", i)}, PeerName: fmt.Sprintf("b%d", i)}))
			}
		}},
		{name: "floods ARP with all addresses", do: func(h *host) { h.floodARP(false) }},
		{name: "floods ARP with many MAC addresses", do: func(h *host) { h.floodARP(true) }},
	}
}

// TestHostileContainerEnds has the namespace go while the interface lives on in
// another one: GC knows that the attachment is dead, and DEL finds it.
func TestHostileContainerEnds(t *testing.T) {
	for _, verb := range []string{"GC", "DEL"} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.must(attachment("bridge-ln", "stays", h.netns("stays"), full).as("ADD"))
			before := h.snapshot()
			c := attachment("bridge-ln", "c1", h.netns("c1"), full)
			h.must(c.as("ADD"))
			h.in(c.netns, func() {
				h.rename()
				h.moveIn("other0", h.hidden())
			})
			h.loseNetns("c1")
			h.must(c.as(verb))
			h.same(before)
		})
	}
}

// hidden makes a namespace of which no other program knows.
func (h *host) hidden() string { return h.netns("hidden") }

func (h *host) link(name string) netlink.Link {
	h.t.Helper()
	l, err := netlink.LinkByName(name)
	h.check(err)
	return l
}

// rename calls eth0 other0; the kernel wants it down for that.
func (h *host) rename() {
	h.t.Helper()
	l := h.link("eth0")
	h.check(netlink.LinkSetDown(l))
	h.check(netlink.LinkSetName(l, "other0"))
	h.check(netlink.LinkSetUp(l))
}

func (h *host) addresses(prefixes ...string) {
	h.t.Helper()
	for _, p := range prefixes {
		a, err := netlink.ParseAddr(p)
		h.check(err)
		a.Flags = unix.IFA_F_NODAD
		h.check(netlink.AddrAdd(h.link("eth0"), a))
	}
}

// floodARP says 5000 times that some address of the network is at eth0, or, with
// manyMACs, at an address of its own each time.
func (h *host) floodARP(manyMACs bool) {
	h.t.Helper()
	l := h.link("eth0").Attrs()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	h.check(err)
	defer func() { h.check(unix.Close(fd)) }()
	mac := l.HardwareAddr
	for i := range 5000 {
		if manyMACs {
			mac = net.HardwareAddr{2, 7, 7, 7, byte(i >> 8), byte(i)}
		}
		frame := append(net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac...)
		frame = append(frame, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2) // ARP for Ethernet and IPv4, a reply
		ip := []byte{10, 1, 0, byte(4 + i%250)}
		frame = append(append(append(append(frame, mac...), ip...), mac...), ip...)
		h.check(unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.Index}))
	}
}

// sameAttachment are the verbs that come at once for one attachment.
var sameAttachment = map[string][]string{
	"ADDs":           {"ADD", "ADD", "ADD", "ADD"},
	"DELs":           {"DEL", "DEL", "DEL", "DEL"},
	"ADDs and DELs":  {"ADD", "DEL", "ADD", "DEL", "ADD", "DEL"},
	"ADD, DEL, GC":   {"ADD", "DEL", "GC"},
	"ADD and CHECKs": {"ADD", "CHECK", "CHECK"},
}

// TestSameAttachment has calls for one attachment come at the same time, which
// no runtime should do, and some do after a timeout. An ADD that succeeds and
// is not followed by a DEL holds; DEL then leaves nothing.
func TestSameAttachment(t *testing.T) {
	for name, verbs := range sameAttachment {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			conf := edit(t, full, keys{"runtimeConfig.portMappings": raw(`[{"containerPort":53,"protocol":"udp"},{"hostPort":8080,"containerPort":80}]`)})
			h.must(attachment("bridge-ln", "stays", h.netns("stays"), full).as("ADD"))
			before := h.snapshot()
			c := attachment("bridge-ln", "c1", h.netns("c1"), conf)
			for range 10 {
				h.sameAtOnce(c, verbs, before)
			}
		})
	}
}

func (h *host) sameAtOnce(c call, verbs []string, before snapshot) {
	h.t.Helper()
	var calls []call
	for _, v := range verbs {
		more := c.as(v)
		if v == "CHECK" {
			more.stdin = edit(h.t, c.stdin, keys{"prevResult": prevResult("eth0")})
		}
		calls = append(calls, more)
	}
	if verbs[0] == "DEL" {
		h.must(c.as("ADD"))
	}
	for i, r := range h.inCrowd(calls, false) {
		if verbs[i] != "CHECK" && verbs[i] != "ADD" && r.code != 0 {
			h.t.Errorf("%s: code %d: %s", verbs[i], r.code, r.msg)
		}
	}
	added := h.must(c.as("ADD")) // of what may be there already
	h.must(c.with(edit(h.t, c.stdin, keys{"prevResult": raw(added.stdout)})).as("CHECK"))
	h.once(added, before)
	h.must(c.as("DEL"))
	h.same(before)
}

// once fails the test unless the attachment has, beside what was there before,
// one link, its addresses, and each of its ports once.
func (h *host) once(added reply, before snapshot) {
	h.t.Helper()
	var said struct{ PortMappings []json.RawMessage }
	h.check(json.Unmarshal([]byte(added.stdout), &said))
	links, leases, ports := 0, 0, 0
	for _, line := range h.snapshot().since(before) {
		switch {
		case strings.HasPrefix(line, "link "):
			links++
		case strings.HasPrefix(line, "file "+leaseDir):
			leases++
		case strings.Contains(line, " set anyport4 element "):
			ports++
		}
	}
	if want := len(said.PortMappings); links != 1 || leases != 2 || ports != want || want != 2 {
		h.t.Errorf("%d links, %d leases and %d ports, want 1, 2 and 2:\n%s", links, leases, ports, strings.Join(h.snapshot().since(before), "\n"))
	}
}

// TestReusedPath has another container get the path of one that has gone
// without DEL: each has its own, and the late DEL takes only what is its.
func TestReusedPath(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.must(attachment("bridge-ln", "stays", h.netns("stays"), full).as("ADD"))
	before := h.snapshot()
	one := attachment("bridge-ln", "one", h.netns("pod"), full)
	h.must(one.as("ADD"))
	h.loseNetns("pod")
	two := attachment("bridge-ln", "two", h.netns("pod"), full)
	r := h.must(two.as("ADD"))
	two.stdin = edit(t, full, keys{"prevResult": raw(r.stdout)})
	h.must(one.as("DEL"))
	h.must(two.as("CHECK"))
	h.ping("", parseResult(t, r.stdout).addresses(t)[0].Addr())
	// The same container again, in a new namespace at the path of before, its
	// result forgotten by the runtime.
	h.loseNetns("pod")
	h.netns("pod")
	two.stdin = full
	r = h.must(two.as("ADD"))
	h.must(two.with(edit(t, full, keys{"prevResult": raw(r.stdout)})).as("CHECK"))
	h.must(two.as("DEL"))
	h.same(before)
}
