package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
)

// lab is a machine of the test's own: an outside host at 192.0.2.2 reaches it
// as 192.0.2.1, and there are containers:
//
//	web   10.32.0.0/24, fd32::/64   c1 with ports 8080 and 5000-5002, c4 whose namespace is gone
//	plain 10.33.0.0/24, routed      c2 with port 80, c3
//	pods                            c3, too, with port 9090 published by a Publisher
type lab struct {
	t   *testing.T
	c   *engine.Controller
	out string // namespace of the outside host
}

func newLab(t *testing.T) *lab {
	t.Helper()
	lntest.IsolateHost(t)
	c, err := engine.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	l := &lab{t: t, c: c, out: "/run/netns/out"}
	lntest.BindNetns(t, l.out)
	l.wire()
	return l
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// wire joins the outside host to this one.
func (l *lab) wire() {
	l.t.Helper()
	ns, err := os.Open(l.out)
	l.must(err)
	defer func() { _ = ns.Close() }()
	up := func(name, addr string) error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr)
		return errors.Join(err, netlink.AddrAdd(link, a), netlink.LinkSetUp(link))
	}
	l.must(netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "uplink"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns.Fd()),
	}))
	l.must(up("uplink", "192.0.2.1/24"))
	lntest.Enter(l.t, l.out, func() { l.must(up("eth0", "192.0.2.2/24")) })
}

func (l *lab) network(name string, cfg model.NetworkConfig, subnets ...string) *engine.Network {
	l.t.Helper()
	opts := []engine.NetworkOption{engine.WithConfig(cfg)}
	for _, s := range subnets {
		opts = append(opts, engine.WithSubnet(netip.MustParsePrefix(s)))
	}
	n, err := l.c.NewNetwork(context.Background(), "bridge", name, opts...)
	l.must(err)
	return n
}

func netnsOf(container string) string { return "/run/netns/" + container }

func (l *lab) attach(n *engine.Network, container string, opts ...engine.EndpointOption) {
	l.t.Helper()
	if _, err := os.Stat(netnsOf(container)); err != nil {
		lntest.BindNetns(l.t, netnsOf(container))
	}
	sb, err := l.c.NewSandbox(context.Background(), container, engine.WithNetnsPath(netnsOf(container)))
	l.must(err)
	_, err = n.Attach(context.Background(), sb, append(opts, engine.WithMAC(net.HardwareAddr{2, 0, 0, 0, 0, container[1]}))...)
	l.must(err)
}

func natMode(bridge string) model.NetworkConfig {
	return model.NetworkConfig{
		Bridge: bridge, Gateway: true, DefaultGateway: true, GatewayModeIPv4: model.GatewayNAT, GatewayModeIPv6: model.GatewayNAT,
	}
}

// populate makes the networks and containers that lab tells of.
func (l *lab) populate() {
	l.t.Helper()
	web := l.network("web", natMode("ln0"), "10.32.0.0/24", "fd32::/64")
	l.attach(web, "c1", engine.WithPorts(
		engine.PortMapping{HostPort: 8080, ContainerPort: 80},
		engine.PortMapping{
			Protocol: "udp", HostIP: netip.MustParseAddr("192.0.2.1"), HostPort: 5000, HostPortEnd: 5002, ContainerPort: 6000,
			Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		}))
	l.attach(web, "c4")
	l.kill("c4")
	plain := l.network("plain", model.NetworkConfig{Bridge: "ln1", Gateway: true, DefaultGateway: true, GatewayModeIPv4: model.GatewayRouted}, "10.33.0.0/24")
	l.attach(plain, "c2", engine.WithPorts(engine.PortMapping{HostPort: 80, ContainerPort: 80}))
	l.attach(plain, "c3")
	l.publish("pods", "c3", "10.33.0.3", 9090)
}

func (l *lab) publish(network, container, addr string, hostPort int) {
	l.t.Helper()
	p, err := l.c.Publisher(network, model.PublishConfig{})
	l.must(err)
	_, err = p.Publish(context.Background(), engine.Publication{
		ID: model.ID{Network: network, ContainerID: container, IfName: "eth0"}, Netns: netnsOf(container),
		Addrs: []netip.Addr{netip.MustParseAddr(addr)}, Ports: []engine.PortMapping{{HostPort: hostPort, ContainerPort: 90}},
	})
	l.must(err)
}

// kill takes away a container's namespace, as when its last process ends.
func (l *lab) kill(container string) {
	l.t.Helper()
	l.must(errors.Join(unix.Unmount(netnsOf(container), unix.MNT_DETACH), os.Remove(netnsOf(container))))
}

// lnctl runs the command and returns what it printed, errors last.
func (l *lab) lnctl(wantCode int, args ...string) string {
	l.t.Helper()
	var out, stderr bytes.Buffer
	if code := run(args, strings.NewReader(""), &out, &stderr); code != wantCode {
		l.t.Errorf("lnctl %v: exit code %d, want %d\n%s%s", args, code, wantCode, &out, &stderr)
	}
	return out.String() + stderr.String()
}

func (l *lab) nft(stdin string, args ...string) {
	l.t.Helper()
	cmd := exec.Command("nft", args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}

func (l *lab) sysctl(path, value string) {
	l.t.Helper()
	l.must(os.WriteFile(filepath.Join("/proc/sys", path), []byte(value), 0o644))
}

// serve has a container answer each connection with its name.
func (l *lab) serve(container, port string) {
	l.t.Helper()
	lntest.Enter(l.t, netnsOf(container), func() {
		ln, err := net.Listen("tcp4", ":"+port)
		l.must(err)
		l.t.Cleanup(func() { _ = ln.Close() })
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(conn, container)
				_ = conn.Close()
			}
		}()
	})
}

// call connects from outside and returns what answers.
func (l *lab) call(addr string) (answer string, err error) {
	l.t.Helper()
	return l.callWithin(addr, lntest.WaitForAnswer)
}

// callWithin is call for an answer that may not come.
func (l *lab) callWithin(addr string, patience time.Duration) (answer string, err error) {
	l.t.Helper()
	lntest.Enter(l.t, l.out, func() {
		var conn net.Conn
		if conn, err = lntest.Dial("tcp4", addr, patience); err != nil {
			return
		}
		var data []byte
		data, err = io.ReadAll(conn)
		answer, err = string(data), errors.Join(err, conn.Close())
	})
	return answer, err
}
