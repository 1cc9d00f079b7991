package integration

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// part keeps a host from etcd, and from nothing else, until heal is called.
// Packets get lost, as where a switch fails: the sender gets no error.
func (a *agents) part(host string) (heal func()) {
	a.t.Helper()
	r := &netlink.Route{Dst: ipNet(a.cluster, "192.0.2.250/32"), Type: unix.RTN_BLACKHOLE}
	a.in(netnsPath(host), func() { a.check(netlink.RouteAdd(r)) })
	return func() { a.in(netnsPath(host), func() { a.check(netlink.RouteDel(r)) }) }
}

// awaitKeys waits until etcd has so many keys below ours.
func (a *agents) awaitKeys(below string, n int) {
	a.t.Helper()
	var keys []string
	for end := time.Now().Add(agentPatience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if keys = strings.Fields(a.etcdctl("get", "--prefix", "--keys-only", "/libnet/v1/"+below)); len(keys) == n {
			return
		}
	}
	a.t.Fatalf("%s: %q, want %d keys", below, keys, n)
}

// A host that does not reach etcd for longer than its lease lives keeps its
// blocks and its connections, and starts containers. Back again, it sees what
// came meanwhile, though etcd has forgotten the changes.
func TestAgentParted(t *testing.T) {
	t.Parallel()
	a := newAgents(t, 3)
	for _, h := range a.hosts {
		a.configure(0, h, nil)
	}
	short := []string{"--live-ttl", "3s"}
	a.start("h1", short...)
	a.start("h2", short...)
	a.awaitPeers("h1", 1)
	a.awaitPeers("h2", 1)
	blocks := fmt.Sprint(a.nodeFile("h2").Blocks)
	near, far := a.attach("h1", "near", nil), a.attach("h2", "far", nil)
	heal := a.part("h2")
	a.awaitKeys("live/nodes/", 1)
	a.pingAll(near, far, a.attach("h2", "new", nil))
	a.start("h3", short...)
	a.awaitPeers("h3", 2) // one that is not heard of is a peer
	a.compact()
	heal()
	a.awaitPeers("h2", 2)
	a.awaitHealth("h2", "ok")
	if got := fmt.Sprint(a.nodeFile("h2").Blocks); got != blocks {
		t.Errorf("blocks are %s, were %s", got, blocks)
	}
	a.pingAll(near, far, a.attach("h3", "third", nil))
}

// compact has etcd forget all that has changed.
func (a *agents) compact() {
	a.t.Helper()
	var got struct{ Header struct{ Revision int64 } }
	a.check(json.Unmarshal([]byte(a.etcdctl("get", "x", "-w", "json")), &got))
	a.etcdctl("compaction", fmt.Sprint(got.Header.Revision))
}

// A host that is away for longer than it holds its blocks gives no address out
// any more by itself, before another host has its block. When it is back, it
// knows of the loss and takes the next free block.
func TestAgentLosesBlock(t *testing.T) {
	t.Parallel()
	a := newAgents(t, 3)
	keys := map[string]any{"subnet": "10.80.0.0/24", "blockSize": map[string]any{"ipv4": 25}} // two blocks
	for _, h := range a.hosts {
		a.configure(0, h, keys)
	}
	short := []string{"--live-ttl", "3s", "--block-ttl", "5s"}
	a.start("h1", short...)
	a.start("h2", short...)
	a.awaitPeers("h1", 1)
	a.awaitPeers("h2", 1)
	block := a.nodeFile("h2").Blocks[0]
	near, lost := a.attach("h1", "near", keys), a.attach("h2", "lost", keys)
	a.pingAll(near, lost)
	a.start("h3", short...)
	a.awaitHealth("h3", "no free block left")
	heal := a.part("h2")
	a.awaitPeers("h3", 1)
	status := call{plugin: "overlay-ln", command: "STATUS", stdin: a.agentConf(0, "h2", keys)}
	if r := a.tryOn("h2", status); r.code != 50 || !strings.Contains(r.msg, "out of date") {
		t.Errorf("STATUS of a host that is away: code %d, %q, want 50 and why", r.code, r.msg)
	}
	add := attachment("overlay-ln", "late", a.netns("late"), a.agentConf(0, "h2", keys))
	if r := a.tryOn("h2", add.as("ADD")); r.code != 11 {
		t.Errorf("ADD of a host that is away: code %d, %q, want 11", r.code, r.msg)
	}
	if got := a.nodeFile("h3").Blocks; len(got) != 1 || got[0] != block {
		t.Fatalf("h3 has %v, want %s, which was h2's", got, block)
	}
	third := a.attach("h3", "third", keys)
	a.pingAll(near, third)
	heal()
	a.awaitHealth("h2", "this node has no block yet")
	a.awaitAgent("h2", "/metrics", "lost block", func(body string, _ int) bool {
		return metric(body, `libnet_agent_blocks_lost_total{network="net0"}`) == 1
	})
	if log := a.procs["h2"].log.String(); !strings.Contains(log, "BLOCK LOST") {
		t.Error("the log is not loud about it")
	}
	a.awaitKeys("networks/net0/blocks/", 2)
	a.pingAll(near, third)
	a.mustOn("h3", third.call.as("DEL"))
	a.procs["h3"].stop(t)
	a.in(netnsPath("h3"), func() {
		if out, err := a.agentCommand("h3", "leave").CombinedOutput(); err != nil {
			t.Errorf("leave: %v, %s", err, out)
		}
	})
	a.awaitPeers("h2", 1)
	a.mustOn("h2", lost.call.as("DEL"))
	a.pingAll(near, a.attach("h2", "again", keys))
}

// etcd loses everything: the hosts agree anew, and each takes the block that it
// had. Containers and their addresses stay as they are.
func TestAgentEtcdLosesAll(t *testing.T) {
	t.Parallel()
	a := newAgents(t, 2)
	a.up(nil, "--live-ttl", "3s")
	blocks := fmt.Sprint(a.nodeFile("h1").Blocks, a.nodeFile("h2").Blocks)
	near, far := a.attach("h1", "near", nil), a.attach("h2", "far", nil)
	a.etcd.Kill()
	a.awaitHealth("h1", "etcd:")
	a.awaitHealth("h2", "etcd:")
	a.pingAll(near, far)
	a.etcd.Wipe()
	a.startEtcd()
	for _, h := range a.hosts {
		a.awaitPeers(h, 1)
		a.awaitHealth(h, "ok")
	}
	if got := fmt.Sprint(a.nodeFile("h1").Blocks, a.nodeFile("h2").Blocks); got != blocks {
		t.Errorf("blocks are %s, were %s", got, blocks)
	}
	a.pingAll(near, far, a.attach("h1", "third", nil))
	if log := a.procs["h1"].log.String() + a.procs["h2"].log.String(); strings.Contains(log, "BLOCK LOST") {
		t.Errorf("a block is lost:\n%s", log)
	}
}

// etcd is put back as it was before a host had its block, while that host's agent
// is not there. A host that joins then gets another block; the old one's
// containers stay reached, and it starts more; back again, it has its block.
func TestAgentEtcdRestored(t *testing.T) {
	t.Parallel()
	a := newAgents(t, 3)
	keys := map[string]any{"subnet": "10.80.0.0/24", "blockSize": map[string]any{"ipv4": 26}} // four blocks
	for _, h := range a.hosts {
		a.configure(0, h, keys)
	}
	a.start("h1")
	a.awaitAgent("h1", "/healthz", "health", func(_ string, code int) bool { return code == 200 })
	a.etcd.Kill()
	old := a.etcd.Save()
	a.startEtcd()
	a.start("h2")
	a.awaitPeers("h1", 1)
	a.awaitPeers("h2", 1)
	block := a.nodeFile("h2").Blocks[0]
	near, far := a.attach("h1", "near", keys), a.attach("h2", "far", keys)
	a.procs["h2"].kill(t)
	a.etcd.Kill()
	a.etcd.Restore(old)
	a.start("h3")
	a.startEtcd()
	a.awaitPeers("h3", 2)
	if got := a.nodeFile("h3").Blocks[0]; got == block {
		t.Fatalf("h3 has %s, which is h2's", got)
	}
	third := a.attach("h3", "third", keys)
	a.pingAll(near, far, a.attach("h2", "more", keys)) // h2 does not know h3 yet
	a.pingAll(near, third)
	a.start("h2")
	a.awaitPeers("h2", 2)
	a.awaitHealth("h2", "ok")
	if got := a.nodeFile("h2").Blocks[0]; got != block {
		t.Errorf("h2 has %s, had %s", got, block)
	}
	a.pingAll(near, far, third)
	if log := a.procs["h2"].log.String() + a.procs["h1"].log.String(); strings.Contains(log, "BLOCK LOST") {
		t.Errorf("a block is lost:\n%s", log)
	}
}

// An agent that is killed, and comes again, costs no packet, on either side.
func TestAgentKilled(t *testing.T) {
	t.Parallel()
	a := newAgents(t, 2)
	a.up(nil)
	near, far := a.attach("h1", "near", nil), a.attach("h2", "far", nil)
	a.pingAll(near, far) // each owner of a MAC is known
	var sent, lost int
	var stops []func() (int, int)
	for _, addr := range far.addresses {
		stops = append(stops, a.pingOften(near.netns, addr))
	}
	for range 2 {
		for _, h := range a.hosts {
			a.procs[h].kill(t)
			a.start(h)
			a.awaitPeers(h, 1)
		}
	}
	for _, stop := range stops {
		s, l := stop()
		sent, lost = sent+s, lost+l
	}
	t.Logf("%d packets, %d lost", sent, lost)
	if lost > 0 || sent < 500 {
		t.Errorf("of %d packets %d are lost, want none of 500 at least", sent, lost)
	}
}

// pingOften sends an ICMP echo request every millisecond until stop is called,
// which says how many there were, and how many had no answer.
func (a *agents) pingOften(from string, to netip.Addr) (stop func() (sent, lost int)) {
	a.t.Helper()
	network, request, response := "ip4:icmp", byte(8), byte(0)
	if to.Is6() {
		network, request, response = "ip6:ipv6-icmp", 128, 129
	}
	var conn net.PacketConn
	a.in(from, func() {
		var err error
		conn, err = net.ListenPacket(network, "")
		a.check(err)
		raw, err := conn.(*net.IPConn).SyscallConn()
		a.check(err)
		a.check(raw.Control(func(fd uintptr) { // answers wait while this process does
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
		}))
	})
	end, sent := make(chan struct{}), make(chan int)
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-end:
				sent <- n
				return
			case <-tick.C:
			}
			msg := binary.BigEndian.AppendUint32([]byte{request, 0, 0, 0, 0x6c, 0x6e, 0, 0}, uint32(n))
			if to.Is4() {
				binary.BigEndian.PutUint16(msg[2:], checksum(msg))
			}
			_, _ = conn.WriteTo(msg, &net.IPAddr{IP: to.AsSlice()}) // what is not sent is lost
		}
	}()
	var answered atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		seen, buf := map[uint32]bool{}, make([]byte, 1500)
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if n == 12 && buf[0] == response && buf[4] == 0x6c && buf[5] == 0x6e {
				seen[binary.BigEndian.Uint32(buf[8:])] = true
				answered.Store(int64(len(seen)))
			}
		}
	}()
	return func() (int, int) {
		close(end)
		n := <-sent
		lntest.Await(lntest.WaitForAnswer, func() bool { return answered.Load() == int64(n) })
		_ = conn.Close()
		<-ended
		return n, n - int(answered.Load())
	}
}

// An ADD that takes so long that this host's right to its block is over when it
// is done fails and leaves nothing: it waits for the lock of the pool, which the
// test holds. With the right as it was the same ADD succeeds.
func TestAgentLateADD(t *testing.T) {
	t.Parallel()
	a := newAgents(t, 2)
	a.up(nil)
	a.mustOn("h1", a.attach("h1", "first", nil).call.as("DEL")) // all that stays is there
	a.procs["h1"].kill(t)                                       // the file is not renewed
	path := "/run/libnet-h1/overlay/net0.json"
	whole, err := os.ReadFile(path)
	a.check(err)
	until := func(seconds int64) {
		text := regexp.MustCompile(`"until":[0-9]+`).ReplaceAllString(string(whole), fmt.Sprintf(`"until":%d`, engine.Uptime()+seconds))
		a.check(os.WriteFile(path, []byte(text), 0o600))
	}
	until(1000)
	var before snapshot
	a.in(netnsPath("h1"), func() { before = a.snapshot() })
	for _, left := range []int64{-1, 1000} {
		until(1000)
		name := fmt.Sprint("late", left)
		add := attachment("overlay-ln", name, a.netns(name), a.agentConf(0, "h1", nil))
		r := a.held("h1", "/var/lib/leases-h1/net0/lock", add.as("ADD"), func() { until(left) })
		if left > 0 && r.code != 0 {
			t.Errorf("in time: code %d, %q", r.code, r.msg)
		}
		if left < 0 && (r.code != 11 || !strings.Contains(r.msg, "out of date")) {
			t.Errorf("late: code %d, %q, want 11 and why", r.code, r.msg)
			a.mustOn("h1", add.as("DEL"))
		}
		if left < 0 {
			until(1000)
			a.in(netnsPath("h1"), func() { a.sameBut(before, "net0.json|last_reserved") })
		}
	}
}

// held makes a call while a lock is held, and does something before it goes on.
func (a *agents) held(host, path string, c call, meanwhile func()) reply {
	a.t.Helper()
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	a.check(err)
	defer func() { _ = lock.Close() }()
	a.check(unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	var st unix.Stat_t
	a.check(unix.Fstat(int(lock.Fd()), &st))
	cmd := exec.Command(program(a.t, c.plugin))
	var stdout, stderr bytes.Buffer
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.environ(a.t), strings.NewReader(c.stdin), &stdout, &stderr
	a.in(netnsPath(host), func() { a.check(cmd.Start()) })
	waits := fmt.Sprintf(":%d ", st.Ino)
	for end := time.Now().Add(agentPatience); ; time.Sleep(10 * time.Millisecond) {
		locks, err := os.ReadFile("/proc/locks")
		a.check(err)
		if regexp.MustCompile(`-> FLOCK .*` + waits).Match(locks) {
			break
		}
		if time.Now().After(end) {
			a.t.Fatalf("the call does not wait for %s; it printed %s", path, stdout.String())
		}
	}
	meanwhile()
	a.check(unix.Flock(int(lock.Fd()), unix.LOCK_UN))
	return a.reply(c, cmd.Wait(), stdout.String(), stderr.String())
}
