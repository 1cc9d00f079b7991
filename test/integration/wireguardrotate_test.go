package integration

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/wireguard"
)

// rotate changes the keys of network 0, asked for on a host, and returns how long it took until all
// hosts had the new ones only.
func (r *rotating) rotate(host string) time.Duration {
	t := r.agents.t
	t.Helper()
	start := time.Now()
	out, err := r.rotateCommand(host).CombinedOutput()
	if err != nil {
		t.Errorf("rotate-keys on %s: %v\n%s", host, err, out)
	}
	if !regexp.MustCompile(`^net0: epoch [0-9]+, [0-9]+ ms\n$`).Match(out) {
		t.Errorf("rotate-keys prints %q", out)
	}
	return time.Since(start)
}

func (r *rotating) rotateCommand(host string) *exec.Cmd {
	return exec.Command(program(r.agents.t, "lnctl"), "--state-dir", "/run/libnet-"+host, "overlay", "rotate-keys", "net0", "--wait", "90s")
}

// pinger sends the marker a thousand times a second to a container, which sends it back.
type pinger struct {
	stop chan struct{}
	done sync.WaitGroup
	sent atomic.Int64
	got  sync.Map // by number
	at   []time.Time
	errs []error // of sending
}

const echoPort = 7707

// received is what came to a container by streams: how many bytes, and the longest time without any.
type received struct{ bytes, longest atomic.Int64 }

// echo answers in a container what a pinger sends, and by TCP reads all that comes.
func (r *rotating) echo(in container) *received {
	r.agents.t.Helper()
	got := &received{}
	r.agents.in(in.netns, func() {
		l, err := net.ListenUDP("udp", &net.UDPAddr{Port: echoPort})
		r.agents.check(err)
		_ = l.SetReadBuffer(8 << 20)
		tcp, err := net.Listen("tcp", ":"+strconv.Itoa(echoPort))
		r.agents.check(err)
		r.agents.t.Cleanup(func() { _, _ = l.Close(), tcp.Close() })
		go func() {
			buf := make([]byte, 2048)
			for {
				n, from, err := l.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				_, _ = l.WriteToUDPAddrPort(buf[:n], from)
			}
		}()
		go func() {
			for {
				c, err := tcp.Accept()
				if err != nil {
					return
				}
				go got.readAll(c)
			}
		}()
	})
	return got
}

// readAll reads until the stream ends.
func (g *received) readAll(c net.Conn) {
	defer func() { _ = c.Close() }()
	buf := make([]byte, 64<<10)
	last := time.Time{}
	for {
		n, err := c.Read(buf)
		now := time.Now()
		if err != nil {
			return
		}
		if !last.IsZero() {
			g.longest.Store(max(g.longest.Load(), int64(now.Sub(last))))
		}
		g.bytes.Add(int64(n))
		last = now
	}
}

// ping begins to ping a container from another one.
func (r *rotating) pinger(from container, to netip.Addr) *pinger {
	r.agents.t.Helper()
	p := &pinger{stop: make(chan struct{})}
	r.agents.in(from.netns, func() {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, echoPort)))
		r.agents.check(err)
		_ = c.SetReadBuffer(8 << 20)
		r.agents.t.Cleanup(func() { _ = c.Close() })
		go func() {
			buf := make([]byte, 2048)
			for {
				n, err := c.Read(buf)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil && n == 8+len(marker) {
					p.got.Store(int64(binary.BigEndian.Uint64(buf)), true)
				}
			}
		}()
		p.done.Add(1)
		go func() {
			defer p.done.Done()
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for n := int64(0); ; n++ {
				select {
				case <-p.stop:
					return
				case <-tick.C:
				}
				p.at = append(p.at, time.Now())
				// An error, as of an unreachable route, is of this packet or of the one before: lost.
				if _, err := c.Write(append(binary.BigEndian.AppendUint64(nil, uint64(n)), marker...)); err != nil {
					p.errs = append(p.errs, fmt.Errorf("packet %d: %w", n, err))
				}
				p.sent.Add(1)
			}
		}()
	})
	return p
}

// lost stops a pinger and says how many of its packets never came back, of how many.
func (p *pinger) lost() (lost []int64, sent int64) {
	close(p.stop)
	p.done.Wait()
	sent = p.sent.Load()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		lost = nil
		for n := range sent {
			if _, ok := p.got.Load(n); !ok {
				lost = append(lost, n)
			}
		}
		if len(lost) == 0 || time.Now().After(end) {
			return lost, sent
		}
	}
}

// times tells when packets were sent: how many from when to when, without a second between two.
func (p *pinger) times(packets []int64) string {
	const clock = "15:04:05.000"
	var all []string
	for first := 0; first < len(packets); {
		last := first
		for last+1 < len(packets) && p.at[packets[last+1]].Sub(p.at[packets[last]]) < time.Second {
			last++
		}
		all = append(all, fmt.Sprintf("%d from %s to %s", last-first+1, p.at[packets[first]].UTC().Format(clock), p.at[packets[last]].UTC().Format(clock)))
		first = last + 1
	}
	return strings.Join(all, ", ")
}

// stream writes the marker to a container, again and again, until stopped: it then says how many
// bytes were written.
func (r *rotating) stream(from container, to netip.Addr) (stop func() int64) {
	r.agents.t.Helper()
	var c net.Conn
	r.agents.in(from.netns, func() {
		var err error
		c, err = net.Dial("tcp", netip.AddrPortFrom(to, echoPort).String())
		r.agents.check(err)
	})
	r.agents.t.Cleanup(func() { _ = c.Close() })
	end, done := make(chan struct{}), make(chan error, 1)
	sent := int64(0)
	go func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-end:
				done <- nil
				return
			case <-tick.C:
			}
			n, err := io.WriteString(c, marker)
			sent += int64(n)
			if err != nil {
				done <- err
				return
			}
		}
	}()
	return func() int64 {
		r.agents.t.Helper()
		close(end)
		if err := <-done; err != nil {
			r.agents.t.Errorf("the stream of %s broke after %d bytes: %v", from.host, sent, err)
		}
		return sent
	}
}

// heartbeat is the longest time that a goroutine with nothing to do was kept waiting: what the
// machine adds to any time that is measured beside it.
func heartbeat() (stop func() time.Duration) {
	end, longest := make(chan struct{}), make(chan time.Duration)
	go func() {
		most, last := time.Duration(0), time.Now()
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-end:
				longest <- most
				return
			case <-tick.C:
			}
			now := time.Now()
			most, last = max(most, now.Sub(last)), now
		}
	}()
	return func() time.Duration { close(end); return <-longest }
}

// rotations is how often the keys change in a test: LIBNET_ROTATIONS, or a few times.
func rotations(t *testing.T) int {
	text := os.Getenv("LIBNET_ROTATIONS")
	if text == "" {
		return 6
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("LIBNET_ROTATIONS=%q: want a number", text)
	}
	return n
}

// longestStall is how long a stream may stall: 200 ms are wanted, and held with LIBNET_ROTATIONS, on
// a machine that has nothing else to do.
func longestStall() time.Duration {
	if os.Getenv("LIBNET_ROTATIONS") == "" {
		return 2 * time.Second
	}
	return 200 * time.Millisecond
}

// Three hosts change their keys again and again, under pings of 1 kHz and a TCP stream between all
// of them, half of the time while the agent of one is killed: no packet is lost, the stream never
// stalls, and what passes between the hosts has neither the payload nor VXLAN in it. A host that
// filters by the way back gets all, too.
func TestWireGuardRotation(t *testing.T) {
	r := newRotating(t, 3, "--log-level", "debug")
	for _, h := range r.agents.hosts {
		r.agents.in(netnsPath(h), func() { r.agents.check(os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("1"), 0)) })
	}
	all := r.containers()
	r.pingAll(all...)
	c := r.capture()
	beat := heartbeat()
	var pingers []*pinger
	var streams []func() int64
	var got []*received
	for i := range all {
		got = append(got, r.echo(all[i]))
	}
	for i := range all {
		to := all[(i+1)%len(all)].addresses
		pingers = append(pingers, r.pinger(all[i], to[i%len(to)])) // by one family or the other
		streams = append(streams, r.stream(all[i], to[(i+1)%len(to)]))
	}
	quickest, n, frames := time.Hour, rotations(t), 0
	for i := range n {
		first := r.devices("h1")
		ask, victim := r.agents.hosts[i%3], r.agents.hosts[(i+1)%3]
		if i%2 == 0 {
			quickest = min(quickest, r.rotate(ask))
		} else {
			cmd := r.rotateCommand(ask)
			r.agents.check(cmd.Start())
			r.killAgent(victim, rand.N(700*time.Millisecond))
			r.agents.check(cmd.Wait())
		}
		if t.Failed() {
			break
		}
		for _, h := range r.agents.hosts {
			r.awaitPeers(h, 2)
			if got := r.devices(h); len(got) != 1 || got[0] == first[0] {
				t.Errorf("rotation %d: %s has %v, h1 had %v", i, h, got, first)
			}
			if got := r.privateKeys(h); len(got) != 1 {
				t.Errorf("rotation %d: private keys of %s: %v", i, h, got)
			}
		}
		frames += c.sealed("rotating").wireguard
	}
	total := int64(0)
	for i, p := range pingers {
		lost, sent := p.lost()
		total += sent
		if len(lost) > 0 {
			t.Errorf("pings of %s: %d of %d lost: %s; %v, %v", all[i].host, len(lost), sent, p.times(lost), lost[:min(len(lost), 5)], p.errs[:min(len(p.errs), 5)])
		}
	}
	worst, carried := time.Duration(0), int64(0)
	for i, stop := range streams {
		sent, to := stop(), got[(i+1)%len(got)]
		r.await(fmt.Sprintf("end of the stream of %s, which sent %d bytes", all[i].host, sent), func() bool { return to.bytes.Load() == sent })
		worst, carried = max(worst, time.Duration(to.longest.Load())), carried+sent
	}
	slack := beat()
	if most := longestStall(); worst > most+slack {
		t.Errorf("a stream stalled for %s, and the machine for %s; want %s at most", worst, slack, most)
	}
	if quickest > 3*time.Second {
		t.Errorf("a rotation of 3 hosts takes %s at least, want 3s at most", quickest)
	}
	frames += c.sealed("at the end").wireguard
	if int64(frames) < 2*total { // each ping passes, and its answer
		t.Errorf("%d frames of WireGuard were captured, want two for each of %d pings at least", frames, total)
	}
	t.Logf("%d rotations, the quickest took %s; %d pings; streams carried %d bytes, the longest stall was %s, of the machine %s; %d frames of WireGuard, none in clear",
		n, quickest, total, carried, worst, slack, frames)
	r.pingAll(all...)
	for _, p := range all {
		check := p.call.as("CHECK")
		check.stdin = edit(t, check.stdin, map[string]any{"prevResult": decode(t, r.agents.mustOn(p.host, p.call.as("ADD")).stdout)})
		r.agents.mustOn(p.host, check)
		r.wellOn(p.host)
	}
}

// killAgent kills a host's agent after a time, and starts it again.
func (r *rotating) killAgent(host string, after time.Duration) {
	time.Sleep(after)
	r.agents.procs[host].kill(r.agents.t)
	r.start(host, "--log-level", "debug")
}

// The keys change by themselves once they are old enough.
func TestWireGuardRotateEvery(t *testing.T) {
	t.Parallel()
	r := newRotating(t, 2, "--rotate-every", "10s")
	all := r.containers()
	r.pingAll(all...)
	r.await("second epoch", func() bool {
		for _, h := range r.agents.hosts {
			if got := r.privateKeys(h); len(got) != 1 || got[0] == "/run/libnet-"+h+"/wireguard/net0.1.key" {
				return false
			}
		}
		return true
	})
	r.pingAll(all...)
}

// The agent undoes what is done to devices, peers and routes by hand, and nothing leaves in clear
// meanwhile; while keys change, too.
func TestWireGuardAgentHeals(t *testing.T) {
	for name, harm := range map[string]func(r *rotating){
		"device deleted":    func(r *rotating) { r.agents.check(netlink.LinkDel(r.secure.link(r.devices("h1")[0]))) },
		"device down":       func(r *rotating) { r.agents.check(netlink.LinkSetDown(r.secure.link(r.devices("h1")[0]))) },
		"routes deleted":    func(r *rotating) { r.deleteRoutes(unix.RTN_UNICAST) },
		"peers removed":     func(r *rotating) { r.takePeers() },
		"endpoints moved":   func(r *rotating) { r.moveEndpoints() },
		"wireguard-go died": func(r *rotating) { r.killUserspace("h1") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRotating(t, 2)
			all := r.containers()
			r.pingAll(all...)
			c := r.capture()
			r.agents.in(netnsPath("h1"), func() { harm(r) })
			r.shout(all[0], all[1])
			r.shout(all[1], all[0])
			r.await("way from h1", func() bool { return r.reaches(all[0], all[1]) && r.reaches(all[1], all[0]) })
			c.sealed(name)
			r.rotate("h2")
			r.pingAll(all...)
			c.sealed(name + ", and changed")
		})
	}
}

// reaches says that a container's ping is answered.
func (r *rotating) reaches(from, to container) (yes bool) {
	heard := r.ear(to)
	r.shout(from, to)
	return heard(100 * time.Millisecond)
}

// moveEndpoints has the device of h1 send to where nothing is.
func (r *rotating) moveEndpoints() {
	d := r.wireguardOf("h1")
	have, err := d.Read()
	r.agents.check(err)
	var c wireguard.Change
	for _, p := range have.Peers {
		p.Endpoint = netip.MustParseAddrPort("192.0.2.99:9")
		c.Set = append(c.Set, p)
	}
	r.agents.check(d.Change(c))
}

// killUserspace kills the wireguard-go of a host. Its agent runs another one.
func (r *rotating) killUserspace(host string) {
	if r.kernel {
		r.agents.check(netlink.LinkDel(r.secure.link(r.devices(host)[0])))
		return
	}
	r.agents.t.Cleanup(func() { r.endStarted(host) })
	r.secure.procs[host].kill(r.agents.t)
}

// endStarted kills what the agent of a host has started, which outlives it.
func (r *rotating) endStarted(host string) {
	var want, have unix.Stat_t
	r.agents.check(unix.Stat(netnsPath(host), &want))
	r.agents.procs[host].kill(r.agents.t)
	all, err := filepath.Glob("/proc/[0-9]*")
	r.agents.check(err)
	for _, dir := range all {
		comm, err := os.ReadFile(dir + "/comm")
		if err != nil || string(comm) != "ln-agent\n" || unix.Stat(dir+"/ns/net", &have) != nil || have.Ino != want.Ino {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		r.agents.check(err)
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// lnctlOn runs lnctl on a host.
func (r *rotating) lnctlOn(host string, args ...string) (string, error) {
	out, err := exec.Command(program(r.agents.t, "lnctl"), append([]string{"--state-dir", "/run/libnet-" + host}, args...)...).CombinedOutput()
	return string(out), err
}

// apart wants nothing of the marker to get from one container to another, either way.
func (r *rotating) apart(when string, a, b container) {
	t := r.agents.t
	t.Helper()
	for _, pair := range [][2]container{{a, b}, {b, a}} {
		heard := r.ear(pair[1])
		r.shout(pair[0], pair[1])
		if heard(noPingWait) {
			t.Errorf("%s: the payload of %s arrived on %s", when, pair[0].host, pair[1].host)
		}
	}
}

// A host that is evicted sends nothing into the network and gets nothing out of it, with its agent
// or without, which then cannot follow; the others go on. Admitted, it is as before.
func TestWireGuardEvict(t *testing.T) {
	t.Parallel()
	r := newRotating(t, 3)
	all := r.containers()
	r.pingAll(all...)
	c := r.capture()
	for _, stubborn := range []bool{false, true} {
		if stubborn { // it does not hear of it
			r.agents.procs["h3"].kill(t)
		}
		if out, err := r.lnctlOn("h1", "overlay", "evict", "h3"); err != nil {
			t.Fatalf("evict: %v, %s", err, out)
		}
		for _, h := range r.agents.hosts[:2] {
			r.awaitPeers(h, 1)
		}
		if !stubborn {
			r.awaitHealth("h3", "this node was evicted, by h1")
			late := attachment("overlay-ln", "late", r.agents.netns("late"), r.agentConf(0, "h3", r.keys))
			if reply := r.tryOn("h3", late.as("ADD")); reply.code != 11 {
				t.Errorf("ADD on an evicted host: code %d, want 11: %s", reply.code, reply.msg)
			}
			r.agents.mustOn("h3", late.as("DEL"))
		}
		r.apart("evicted", all[0], all[2])
		r.apart("evicted", all[1], all[2])
		r.pingAll(all[:2]...)
		c.sealed("evicted")
		r.rotate("h2") // without it
		r.pingAll(all[:2]...)
		if out, err := r.lnctlOn("h2", "overlay", "admit", "h3"); err != nil {
			t.Fatalf("admit: %v, %s", err, out)
		}
		if stubborn {
			r.start("h3")
		}
		for _, h := range r.agents.hosts {
			r.awaitPeers(h, 2)
		}
		r.await("way to h3", func() bool { return r.reaches(all[0], all[2]) && r.reaches(all[2], all[1]) })
		r.pingAll(all...)
	}
	for want, args := range map[string][]string{
		"there is no node \"h7\"; there are: h1, h2, h3": {"evict", "h7"}, "is this host": {"evict", "h1"}, "is not evicted": {"admit", "h3"},
	} {
		if out, err := r.lnctlOn("h1", append([]string{"overlay"}, args...)...); err == nil || !strings.Contains(out, want) {
			t.Errorf("%v: %v, %q, want %q", args, err, out, want)
		}
	}
	c.sealed("admitted")
}

// A host with a key that the registry does not have, and one that has none there, get nothing in
// or out; what is for them does not leave in clear.
func TestWireGuardForeignKey(t *testing.T) {
	t.Parallel()
	r := newRotating(t, 3)
	all := r.containers()
	r.pingAll(all...)
	c := r.capture()
	r.agents.procs["h3"].kill(t) // else it would announce the key
	path := r.privateKeys("h3")[0]
	r.agents.check(os.Remove(path))
	r.keygen(path)
	r.agents.in(netnsPath("h3"), func() { r.agents.check(netlink.LinkDel(r.secure.link(r.devices("h3")[0]))) })
	if !r.kernel {
		r.await("bare device", func() bool { return r.deviceOf("h3") != "" })
	}
	// STATUS makes the device by the node file, or says that the key is another one.
	r.tryOn("h3", call{plugin: "overlay-ln", command: "STATUS", stdin: all[2].call.stdin})
	r.apart("foreign key", all[0], all[2])
	r.apart("foreign key", all[1], all[2])
	r.pingAll(all[:2]...)
	r.start("h3") // it announces the key
	r.await("way to h3", func() bool { return r.reaches(all[0], all[2]) && r.reaches(all[2], all[1]) })
	c.sealed("foreign key")
	for _, put := range [][2]string{ // without the hold, which comes first, any agent would delete the others
		{"holds/h9", `{"seconds":86400}`}, {"nodes/h9", `{"address":"192.0.2.9"}`}, {"networks/net0/blocks/10.80.77.0/24", `{"node":"h9"}`},
	} {
		r.etcdctl("put", "/libnet/v1/"+put[0], put[1])
	}
	r.awaitAgent("h1", "/metrics", "a peer without key", func(body string, _ int) bool {
		return metric(body, `libnet_agent_peers_wanted{network="net0"}`) == 3 && metric(body, `libnet_agent_peers_programmed{network="net0"}`) == 2
	})
	r.shout(all[0], container{addresses: []netip.Addr{netip.MustParseAddr("10.80.77.5")}})
	c.sealed("no key")
	r.pingAll(all...)
}

// A packet that was captured and is sent again comes in nowhere: neither before nor after a
// change of keys.
func TestWireGuardReplay(t *testing.T) {
	t.Parallel()
	r := newRotating(t, 2)
	all := r.containers()
	r.pingAll(all...)
	fd, _ := r.packetSocket()
	heard := r.ear(all[1])
	r.shout(all[0], all[1])
	count := 0
	for heard(time.Second) {
		count++
	}
	var frames [][]byte
	buf := make([]byte, 70<<10)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		r.agents.check(err)
		if port := udpPort(buf[:n]); (port == securePort || port == securePort+1) && from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_OUTGOING {
			frames = append(frames, append([]byte(nil), buf[:n]...))
		}
	}
	if count == 0 || len(frames) == 0 {
		t.Fatalf("%d payloads arrived, %d frames captured", count, len(frames))
	}
	lan, err := net.InterfaceByName("to-h2") // to the second host, as if from the first one
	r.agents.check(err)
	again := func(when string) {
		heard := r.ear(all[1])
		before := r.receivedBy("h2")
		for _, f := range frames {
			r.agents.check(unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: lan.Index}))
		}
		r.await("frames on h2", func() bool { return r.receivedBy("h2") > before })
		if heard(time.Second) {
			t.Errorf("%s: %d frames that were sent again had the payload arrive", when, len(frames))
		}
	}
	again("the same keys")
	r.rotate("h1")
	again("other keys")
	r.pingAll(all...)
}

// receivedBy is how many UDP packets a host has got, or refused.
func (r *rotating) receivedBy(host string) (count uint64) {
	r.agents.in(netnsPath(host), func() {
		data, err := os.ReadFile("/proc/thread-self/net/dev")
		r.agents.check(err)
		for line := range strings.Lines(string(data)) {
			if f := strings.Fields(line); f[0] == "eth0:" {
				count, err = strconv.ParseUint(f[2], 10, 64)
				r.agents.check(err)
			}
		}
	})
	return count
}
