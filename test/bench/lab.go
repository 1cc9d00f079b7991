package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"
)

// lab is a world with two containers of a chain and a client outside.
type lab struct {
	name   string
	w      *world
	a, b   place
	host   place
	client place
	target string // where the client finds what a serves, with the port
	got    map[path]*figures
}

// place is a network namespace and its address; no path is the host's own.
type place struct{ netns, addr string }

// servedPort is where containers and host listen; publishedPort is that of the
// host which leads to a container, so that the host's own stays the host's.
const (
	servedPort    = 5000
	publishedPort = 8080
)

// The link between the host and the client outside.
const (
	hostAddr   = "192.0.2.1"
	clientAddr = "192.0.2.2"
)

func newFigures() map[path]*figures {
	return map[path]*figures{containers: {}, toHost: {}, published: {}, throughTunnel: {}}
}

// newLab attaches two containers by the chain; the first publishes its port.
func newLab(c *chain) (*lab, error) {
	l := &lab{name: c.name, w: c.w, target: fmt.Sprintf("%s:%d", hostAddr, publishedPort), got: newFigures()}
	err := c.w.do(func() error {
		for i, p := range []*place{&l.a, &l.b} {
			path, err := newNetns(fmt.Sprint("lab", i))
			if err != nil {
				return err
			}
			rt := container{id: fmt.Sprint("lab", i), netns: path}.runtime()
			if i == 0 {
				rt.CapabilityArgs = map[string]any{"portMappings": []map[string]any{
					{"hostPort": publishedPort, "containerPort": servedPort, "protocol": "tcp"},
					{"hostPort": publishedPort, "containerPort": servedPort, "protocol": "udp"},
				}}
			}
			if err := c.run("ADD", rt); err != nil {
				return err
			}
			p.netns = path
		}
		return l.addClient()
	})
	if err != nil {
		return nil, err
	}
	for _, p := range []*place{&l.a, &l.b} {
		if p.addr, err = l.address(p.netns, "eth0"); err != nil {
			return nil, err
		}
	}
	l.host.addr, err = l.address("", "bench0")
	return l, err
}

// addClient makes the namespace of the client and its link to the host.
func (l *lab) addClient() error {
	path, err := newNetns("client")
	if err != nil {
		return err
	}
	l.client = place{path, clientAddr}
	return connect("uplink", hostAddr+"/24", path, "eth0", clientAddr+"/24")
}

// newPlain is the kernel alone: containers on a bridge without rules, a veth
// between container and host without a bridge, and a route to the client.
func newPlain() (*lab, error) {
	w, err := newWorld()
	if err != nil {
		return nil, err
	}
	l := &lab{name: "plain kernel", w: w, target: fmt.Sprintf("10.1.0.2:%d", servedPort), got: newFigures()}
	l.a, l.b, l.host = place{"", "10.1.0.2"}, place{"", "10.1.0.3"}, place{"", "10.2.0.1"}
	return l, w.do(func() error {
		if err := l.addClient(); err != nil {
			return err
		}
		if err := makeBridge("bench0", "10.1.0.1/16"); err != nil {
			return err
		}
		for i, p := range []*place{&l.a, &l.b} {
			path, err := newNetns(fmt.Sprint("lab", i))
			if err != nil {
				return err
			}
			p.netns = path
			port := fmt.Sprint("port", i)
			err = errors.Join(connect(port, "", path, "eth0", p.addr+"/16"), ip("link", "set", port, "master", "bench0"),
				ip("-n", fmt.Sprint("lab", i), "route", "add", "default", "via", "10.1.0.1"))
			if err != nil {
				return err
			}
		}
		return errors.Join(
			connect("direct", "10.2.0.1/24", l.a.netns, "eth1", "10.2.0.2/24"),
			ip("-n", "client", "route", "add", "10.1.0.0/16", "via", hostAddr),
			os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644))
	})
}

// connect makes a veth between here and the namespace at path.
func connect(name, addr, path, peer, peerAddr string) error {
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer, PeerNamespace: netlink.NsFd(ns.Fd())}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("veth %s: %w", name, err)
	}
	if addr != "" {
		if err := addAddress(name, addr); err != nil {
			return err
		}
	}
	return errors.Join(setUp(name), inNS(ns, func() error { return errors.Join(addAddress(peer, peerAddr), setUp(peer)) }))
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// address is the first IPv4 address of a link of the world.
func (l *lab) address(netns, link string) (addr string, err error) {
	err = l.at(netns, func() error {
		i, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		all, err := i.Addrs()
		if err != nil || len(all) == 0 {
			return errors.Join(fmt.Errorf("%s has no address", link), err)
		}
		ip, _, err := net.ParseCIDR(all[0].String())
		addr = ip.String()
		return err
	})
	return addr, err
}

// at runs fn in a namespace of the world; "" is the host's.
func (l *lab) at(netns string, fn func() error) error {
	if netns == "" {
		return l.w.do(fn)
	}
	return l.w.enter(netns, fn)
}
