package integration

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// secure is a cluster whose network 0 is encrypted. Where the kernel has no WireGuard each
// host runs wireguard-go by ln-agent.
type secure struct {
	*cluster
	keys   map[string]string // public, by host
	procs  map[string]*agentProc
	kernel bool                    // has WireGuard
	ears   map[string]*net.UDPConn // by container
}

// securePort is the UDP port of network 0.
const securePort = 51000

// newSecure makes hosts with keys, and their agents.
func newSecure(t testing.TB, n int, is6 bool) *secure {
	t.Helper()
	s := bareSecure(newCluster(t, n, 1500, is6))
	program(t, "ln-agent")
	for _, h := range s.hosts {
		s.keys[h] = s.keygen(keyFile(h))
	}
	for _, h := range s.hosts {
		s.configure(h, nil)
		s.startAgent(h)
	}
	return s
}

// bareSecure has no keys and no agents yet.
func bareSecure(c *cluster) *secure {
	c.t.Helper()
	s := &secure{cluster: c, keys: map[string]string{}, procs: map[string]*agentProc{}, ears: map[string]*net.UDPConn{}}
	probe := &netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: "probe"}}
	if err := netlink.LinkAdd(probe); err == nil {
		s.kernel = true
		s.check(netlink.LinkDel(probe))
	}
	return s
}

func keyFile(host string) string { return "/run/key-" + host }

func (s *secure) keygen(path string) (public string) {
	s.t.Helper()
	out, err := exec.Command(program(s.t, "lnctl"), "overlay", "keygen", path).Output()
	s.check(err)
	return strings.TrimSpace(string(out))
}

// with returns the keys of an encrypted network of some hosts.
func (s *secure) with(host string, hosts []string, more map[string]any) map[string]any {
	var nodes []any
	for i, h := range s.hosts {
		for _, in := range hosts {
			if in == h {
				nodes = append(nodes, map[string]any{"address": s.address(i).String(), "publicKey": s.keys[h],
					"subnet": []string{fmt.Sprintf("10.80.%d.0/24", i), fmt.Sprintf("fd80:0:0:%d::/64", i)}})
			}
		}
	}
	return merge(map[string]any{"encryption": "wireguard", "privateKeyFile": keyFile(host), "port": securePort, "nodes": nodes}, more)
}

// configure writes the configuration that the host's agent reads.
func (s *secure) configure(host string, more map[string]any) {
	s.t.Helper()
	s.check(os.MkdirAll(confDir(host), 0o755))
	s.check(os.WriteFile(confDir(host)+"/net0.conf", []byte(s.conf(0, host, s.with(host, s.hosts, more))), 0o600))
}

// startAgent starts a host's agent, and waits until it has the device.
func (s *secure) startAgent(host string) { s.t.Helper(); s.startUserspace(host, 1) }

// startUserspace is startAgent for so many devices.
func (s *secure) startUserspace(host string, devices int) {
	s.t.Helper()
	p := &agentProc{log: &tail{}, done: make(chan error, 1)}
	p.cmd = exec.Command(program(s.t, "ln-agent"), "wireguard", "--conf-dir", confDir(host), "--state-dir", "/run/libnet-"+host)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	s.in(netnsPath(host), func() { s.check(p.cmd.Start()) })
	go func() { p.done <- p.cmd.Wait() }()
	s.procs[host] = p
	s.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		p.done <- <-p.done
		if s.t.Failed() {
			s.t.Logf("ln-agent of %s:\n%s", host, p.log)
		}
	})
	if !s.kernel {
		s.await("wireguard-go on "+host, func() bool { return strings.Count(p.log.String(), "wireguard-go runs") == devices })
	}
}

func (s *secure) await(what string, is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(agentPatience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("no %s in %s", what, agentPatience)
		}
	}
}

// attach attaches a container to network 0.
func (s *secure) attach(host, name string, hosts []string) container {
	s.t.Helper()
	p := container{host: host, netns: s.netns(name)}
	p.call = attachment("overlay-ln", name, p.netns, s.conf(0, host, s.with(host, hosts, nil)))
	for _, a := range parseResult(s.t, s.mustOn(host, p.call.as("ADD")).stdout).addresses(s.t) {
		p.addresses = append(p.addresses, a.Addr())
	}
	return p
}

// all attaches one container to each host.
func (s *secure) all() (all []container) {
	s.t.Helper()
	for _, h := range s.hosts {
		all = append(all, s.attach(h, "c-"+h, s.hosts))
	}
	return all
}

// status is a call of STATUS for a network.
func (s *secure) status(host string, hosts []string) reply {
	s.t.Helper()
	var r reply
	s.in(netnsPath(host), func() {
		r = s.run(call{plugin: "overlay-ln", command: "STATUS", stdin: s.conf(0, host, s.with(host, hosts, nil))})
	})
	return r
}

// deviceOf is the name of network 0's device on a host; empty: there is none.
func (s *secure) deviceOf(host string) (name string) {
	s.t.Helper()
	s.in(netnsPath(host), func() {
		links, err := netlink.LinkList()
		for errors.Is(err, netlink.ErrDumpInterrupted) { // ln-agent is at work
			links, err = netlink.LinkList()
		}
		s.check(err)
		for _, l := range links {
			if strings.HasPrefix(l.Attrs().Name, "wg-") && (name == "" || l.Attrs().Alias != "") {
				name = l.Attrs().Name
			}
		}
	})
	return name
}

// reachAll wants each container to reach all others by both families.
func (s *secure) reachAll(all []container) {
	s.t.Helper()
	for _, from := range all {
		for _, to := range all {
			for _, a := range to.addresses {
				s.ping(from.netns, a)
			}
		}
	}
}

const (
	marker     = "libnet-marker-of-a-payload-in-clear"
	markerPort = 7700
)

// shout sends the marker from a container to others, by UDP and, in its first packet, by
// TCP, whatever comes of it.
func (s *secure) shout(from container, to ...container) {
	s.t.Helper()
	s.in(from.netns, func() {
		for _, c := range to {
			for _, a := range c.addresses {
				shoutAt(a)
			}
		}
	})
}

func shoutAt(a netip.Addr) {
	at := netip.AddrPortFrom(a, markerPort)
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at))
	if err != nil {
		return // no way there
	}
	defer func() { _ = c.Close() }()
	for range 5 {
		_, _ = c.Write([]byte(marker))
	}
}

// ear listens for the marker in a container.
func (s *secure) ear(in container) (heard func(wait time.Duration) bool) {
	s.t.Helper()
	l := s.ears[in.netns]
	if l == nil {
		s.in(in.netns, func() {
			var err error
			l, err = net.ListenUDP("udp", &net.UDPAddr{Port: markerPort})
			s.check(err)
		})
		s.t.Cleanup(func() { _ = l.Close() })
		s.ears[in.netns] = l
	}
	heard = func(wait time.Duration) bool {
		buf := make([]byte, 256)
		s.check(l.SetReadDeadline(time.Now().Add(wait)))
		n, _, err := l.ReadFrom(buf)
		return err == nil && string(buf[:n]) == marker
	}
	s.empty(l)
	for heard(time.Millisecond) { // what WireGuard kept until there was a session
		s.empty(l)
	}
	return heard
}

// empty reads what is there already. A read with a deadline may find that it has passed before it
// looks.
func (s *secure) empty(l *net.UDPConn) {
	s.t.Helper()
	s.check(l.SetReadDeadline(time.Time{}))
	raw, err := l.SyscallConn()
	s.check(err)
	s.check(raw.Read(func(fd uintptr) bool {
		buf := make([]byte, 256)
		for {
			if _, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT); err != nil {
				return true
			}
		}
	}))
}

// capture sees every frame that passes the link between the hosts. It reads all the time: what waits
// for a test that waits for something else would fill any buffer.
type capture struct {
	s     *secure
	fd    int
	whole bool // the buffer is as large as wanted, so no frame may be missed
	mu    sync.Mutex
	since seen // the last call of read
}

// seen is what a capture saw.
type seen struct{ all, marked, vxlan, wireguard int }

func (s *secure) capture() *capture {
	s.t.Helper()
	c := &capture{s: s}
	c.fd, c.whole = s.packetSocket()
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
				_ = c.drain() // read tells of an error
			}
		}
	}()
	s.t.Cleanup(func() { close(end); <-done })
	return c
}

// packetSocket gets every frame of the calling thread's namespace, and does not block.
func (s *secure) packetSocket() (fd int, whole bool) {
	s.t.Helper()
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	const buffer = 256 << 20
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	s.check(err)
	s.t.Cleanup(func() { _ = unix.Close(fd) })
	// Without force the host's rmem_max is the limit, which a second of 1 kHz pings fills.
	whole = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) == nil
	if !whole { // not root of the host
		s.check(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer))
	}
	s.check(unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all}))
	return fd, whole
}

// read returns what was seen since the last time.
func (c *capture) read() (out seen) {
	c.s.t.Helper()
	c.s.check(c.drain())
	stats, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	c.s.check(err)
	if c.whole && stats.Drops > 0 {
		c.s.t.Errorf("the capture missed %d of %d frames", stats.Drops, stats.Packets)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	out, c.since = c.since, seen{}
	return out
}

// drain counts what waits in the socket.
func (c *capture) drain() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	buf := make([]byte, 70<<10)
	for {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return err
		}
		c.since.count(buf[:n])
	}
}

func (s *seen) count(frame []byte) {
	s.all++
	if bytes.Contains(frame, []byte(marker)) {
		s.marked++
	}
	switch udpPort(frame) {
	case 4789:
		s.vxlan++
	case securePort, securePort + 1: // keys that change use one and the other
		s.wireguard++
	}
}

// udpPort is the port that a frame with UDP goes to; 0: it has none.
func udpPort(frame []byte) uint16 {
	if len(frame) < 14 {
		return 0
	}
	at := 0
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		if len(frame) > 34 && frame[23] == unix.IPPROTO_UDP {
			at = 14 + int(frame[14]&15)*4
		}
	case unix.ETH_P_IPV6:
		if len(frame) > 54 && frame[20] == unix.IPPROTO_UDP {
			at = 54
		}
	}
	if at == 0 || len(frame) < at+8 {
		return 0
	}
	return binary.BigEndian.Uint16(frame[at+2:])
}

// sealed wants a capture to have seen nothing in clear, and no VXLAN.
func (c *capture) sealed(when string) seen {
	c.s.t.Helper()
	got := c.read()
	if got.marked > 0 || got.vxlan > 0 {
		c.s.t.Errorf("%s: %d of %d frames have the payload in clear, %d are VXLAN; want none", when, got.marked, got.all, got.vxlan)
	}
	return got
}
