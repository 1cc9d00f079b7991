package integration

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// joiner is a host with two networks, "front" and "aside"; c1 is on front, and connects to
// aside, whose name comes first.
type joiner struct {
	*host
	confs string
	front call
	aside string
}

func newJoiner(t *testing.T) *joiner {
	t.Helper()
	h := newHost(t)
	h.world()
	j := &joiner{host: h, confs: t.TempDir()}
	conf := func(name, subnet string) string {
		text := fmt.Sprintf(`{"cniVersion": "1.1.0", "name": %q, "type": "bridge-ln", "bridge": "br-%[1]s", "gatewayMode": "nat", "names": true,
			"ipam": {"type": "ipam-ln", "ranges": [[{"subnet": %q}], [{"subnet": "fd%s::/64"}]]}}`, name, subnet, strings.Split(subnet, ".")[1])
		h.check(os.WriteFile(filepath.Join(j.confs, name+".conf"), []byte(text), 0o600))
		return text
	}
	j.front = attachment("bridge-ln", "c1", h.netns("c1"), conf("front", "10.71.0.0/24"))
	j.front.args = "NAME=one"
	j.aside = conf("aside", "10.72.0.0/24")
	other := attachment("bridge-ln", "c2", h.netns("c2"), j.aside)
	for _, c := range []call{j.front, other} {
		if r := h.run(c.as("ADD")); r.code != 0 {
			t.Fatal(r.msg)
		}
	}
	return j
}

// lnctl calls the command, which shall succeed, or fail.
func (j *joiner) lnctl(ok bool, args ...string) string {
	j.t.Helper()
	out, err := exec.Command(program(j.t, "lnctl"), args...).CombinedOutput()
	if (err == nil) != ok {
		j.t.Fatalf("lnctl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func (j *joiner) connect(ok bool, args ...string) string {
	j.t.Helper()
	return j.lnctl(ok, append([]string{"connect", "--conf-dir", j.confs}, args...)...)
}

func (j *joiner) inside(args ...string) string {
	j.t.Helper()
	return j.exec("nsenter", append([]string{"--net=" + netnsPath("c1")}, args...)...)
}

func (j *joiner) gc(conf, valid string) {
	j.t.Helper()
	j.must(call{plugin: "bridge-ln", command: "GC", stdin: edit(j.t, conf, keys{"cni.dev/valid-attachments": rawJSON(valid)})})
}

// A running container gets one more network as if its runtime had attached it, with names,
// ports and an address that were asked for. Its default route stays, and the other way is
// taken if that is asked for.
func TestConnect(t *testing.T) {
	t.Parallel()
	j := newJoiner(t)
	before := j.snapshot()
	routes := j.inside("ip", "route", "show", "default")
	out := j.connect(true, "aside", "c1", "--ip", "10.72.0.9", "--alias", "db", "--publish", "8088:80/udp")
	if want := "connected c1 to aside: eth1 has 10.72.0.9/24"; !strings.Contains(out, want) || !strings.Contains(out, "published 8088:80/udp") {
		t.Errorf("%s, want %s", out, want)
	}
	if now := j.inside("ip", "route", "show", "default", "dev", "eth0"); strings.TrimSpace(now) != strings.Replace(strings.TrimSpace(routes), " dev eth0", "", 1) {
		t.Errorf("the default route was %s, and is %s", routes, now)
	}
	j.ping(netnsPath("c2"), netip.MustParseAddr("10.72.0.9"))
	j.ping(netnsPath("c1"), netip.MustParseAddr("192.0.2.2"))
	j.ping(netnsPath("c1"), netip.MustParseAddr("10.72.0.2"))
	j.lnctl(true, "check")
	for _, want := range []string{"db", "one"} {
		if got := j.lnctl(true, "names"); strings.Count(got, want) < 1 {
			t.Errorf("no name %s: %s", want, got)
		}
	}
	if got := j.lnctl(true, "endpoint", "inspect", "c1"); !strings.Contains(got, "lnctl connect") || !strings.Contains(got, "8088") {
		t.Errorf("inspect: %s", got)
	}
	for want, args := range map[string][]string{
		"is on network \"aside\" already, by eth1": {"aside", "c1"},
		"no configuration of":                      {"none", "c1"},
		"no container begins so":                   {"aside", "c9"},
		"want [IP:]PORT:CONTAINERPORT":             {"aside", "c1", "--publish", "80"},
		"10.72.0.9":                                {"aside", "c1", "--ifname", "eth7", "--ip", "10.72.0.9"},
	} {
		if got := j.connect(false, args...); !strings.Contains(got, want) {
			t.Errorf("%v: %s, want %s", args, got, want)
		}
	}
	if got := j.lnctl(false, "disconnect", "front", "c1"); !strings.Contains(got, "attached to network \"front\" by its runtime") {
		t.Error(got)
	}
	j.lnctl(true, "disconnect", "aside", "c1")
	j.lnctl(false, "disconnect", "aside", "c1")
	j.sameBut(before, `^file /run/libnet/(addresses|ports)|last_reserved|\.libnet/aside`)
	// By its name, and with a way out that comes first.
	j.connect(true, "aside", "one", "--gw-priority", "5")
	if now := j.inside("ip", "route", "get", "192.0.2.2"); !strings.Contains(now, "dev eth1") {
		t.Errorf("the way out with a higher priority: %s", now)
	}
	j.lnctl(true, "disconnect", "aside", "c1")
	if now := j.inside("ip", "route", "get", "192.0.2.2"); !strings.Contains(now, "dev eth0") {
		t.Errorf("the way out afterwards: %s", now)
	}
	j.ping(netnsPath("c1"), netip.MustParseAddr("192.0.2.2"))
}

// A connected attachment stays through the garbage collections of the runtime's, which does
// not know of it, and goes with the container's last attachment that the runtime made: by DEL,
// or by a GC whose list lacks that.
func TestConnectFollowsContainer(t *testing.T) {
	t.Parallel()
	const kept = `^file /run/libnet/(addresses|ports|networks/front)|last_reserved|\.libnet/|link br-front|addr br-front|route .*br-front|networks/front/`
	j := newJoiner(t)
	second := j.front
	second.ifName = "eth5"
	j.must(j.front.as("DEL"))
	empty := j.snapshot()
	for name, end := range map[string]func(){
		"DEL": func() {
			j.must(second.as("DEL"))
			j.lnctl(true, "check", "aside")
			if got := j.lnctl(true, "endpoint", "ls", "aside"); !strings.Contains(got, "c1") {
				t.Errorf("it went with the first of two: %s", got)
			}
			j.must(j.front.as("DEL"))
		},
		"GC": func() { j.gc(j.front.stdin, `[]`) },
		"a dead container": func() {
			j.loseNetns("c1")
			j.gc(j.aside, `[{"containerID": "c2", "ifname": "eth0"}]`)
			j.gc(j.front.stdin, `[]`)
			j.netns("c1")
		},
	} {
		for _, c := range []call{j.front, second} {
			if r := j.run(c.as("ADD")); r.code != 0 {
				t.Fatal(r.msg)
			}
		}
		j.connect(true, "aside", "c1")
		valid := `[{"containerID": "c2", "ifname": "eth0"}]`
		j.gc(j.aside, valid)
		j.gc(j.front.stdin, `[{"containerID": "c1", "ifname": "eth0"}, {"containerID": "c1", "ifname": "eth5"}]`)
		j.lnctl(true, "gc")
		j.ping(netnsPath("c2"), netip.MustParseAddr(j.addressOf("aside", "c1")))
		end()
		if t.Failed() {
			t.Fatal(name)
		}
		j.sameBut(empty, kept)
	}
}

// addressOf is the IPv4 address of a container on a network.
func (j *joiner) addressOf(network, container string) string {
	j.t.Helper()
	for line := range strings.Lines(j.lnctl(true, "endpoint", "ls", network)) {
		if words := strings.Fields(line); len(words) > 3 && words[1] == container {
			return strings.Split(words[3], "/")[0]
		}
	}
	j.t.Fatalf("%s is not on %s", container, network)
	return ""
}

// A DEL of the container, or another connect, that comes at any moment of a connect: nothing
// of a container that went is left, and each connect has an interface of its own.
func TestConnectBesideOthers(t *testing.T) {
	t.Parallel()
	j := newJoiner(t)
	j.must(j.front.as("DEL"))
	empty := j.snapshot()
	const kept = `^file /run/libnet/(addresses|ports|networks/front)|last_reserved|\.libnet/|br-front|networks/front/`
	lnctl := program(t, "lnctl")
	for round := range 24 {
		if r := j.run(j.front.as("ADD")); r.code != 0 {
			t.Fatal(r.msg)
		}
		var wait sync.WaitGroup
		for _, ifName := range []string{"", "eth3", "eth4"} {
			args := []string{"connect", "--conf-dir", j.confs, "aside", "c1"}
			if ifName != "" {
				args = append(args, "--ifname", ifName)
			}
			cmd := exec.Command(lnctl, args...)
			j.check(cmd.Start())
			wait.Go(func() { _ = cmd.Wait() })
		}
		<-time.After(time.Duration(round) * 4 * time.Millisecond)
		j.must(j.front.as("DEL"))
		wait.Wait()
		if j.sameBut(empty, kept); t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	if r := j.run(j.front.as("ADD")); r.code != 0 {
		t.Fatal(r.msg)
	}
	names := []string{"", "eth3", "eth4"}
	var wait sync.WaitGroup
	for _, ifName := range names {
		cmd := exec.Command(lnctl, "connect", "--conf-dir", j.confs, "aside", "c1", "--ifname", ifName)
		j.check(cmd.Start())
		wait.Go(func() { _ = cmd.Wait() })
	}
	wait.Wait()
	if got := strings.Count(j.lnctl(true, "endpoint", "ls", "aside"), "c1 "); got < 2 {
		t.Errorf("%d of %d connects at once were made", got, len(names))
	}
	j.must(j.front.as("DEL"))
	j.sameBut(empty, kept)
}

// A container that connects and disconnects again and again loses no packet of its first
// network. LIBNET_CONNECT says how often (default 25).
func TestConnectLosesNothing(t *testing.T) {
	t.Parallel()
	j := newJoiner(t)
	rounds := 25
	if n, err := strconv.Atoi(os.Getenv("LIBNET_CONNECT")); err == nil {
		rounds = n
	}
	j.connect(true, "aside", "c1") // a bridge may become loose (rp_filter) with the first one
	j.lnctl(true, "disconnect", "aside", "c1")
	before := j.snapshot()
	stop := j.stream("192.0.2.2")
	var ins, outs []time.Duration
	for range rounds {
		start := time.Now()
		j.connect(true, "aside", "c1")
		ins = append(ins, time.Since(start))
		start = time.Now()
		j.lnctl(true, "disconnect", "aside", "c1")
		outs = append(outs, time.Since(start))
	}
	sent, lost := stop()
	if lost > 0 || sent < rounds {
		t.Errorf("%d of %d packets were lost", lost, sent)
	}
	j.sameBut(before, `^file /run/libnet/addresses|last_reserved|\.libnet/aside`)
	another := j.front
	another.ifName, another.stdin = "eth6", j.aside
	var adds []time.Duration
	for range rounds {
		start := time.Now()
		r := j.run(another.as("ADD"))
		adds = append(adds, time.Since(start))
		if r.code != 0 {
			t.Fatal(r.msg)
		}
		j.must(another.as("DEL"))
	}
	median := func(all []time.Duration) time.Duration { slices.Sort(all); return all[len(all)/2] }
	t.Logf("%d times: connect %s, disconnect %s, ADD of the plugin %s (medians); %d packets, %d lost", rounds, median(ins), median(outs), median(adds), sent, lost)
}

// stream has c1 send a thousand echoes a second until stop is called.
func (j *joiner) stream(to string) (stop func() (sent, lost int)) {
	j.t.Helper()
	var conn net.PacketConn
	lntest.Enter(j.t, netnsPath("c1"), func() {
		var err error
		conn, err = net.ListenPacket("ip4:icmp", "")
		j.check(err)
	})
	done, answers := make(chan struct{}), make(chan int)
	dst := &net.IPAddr{IP: net.ParseIP(to)}
	go func() {
		seen := map[uint32]bool{}
		buf := make([]byte, 1500)
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				answers <- len(seen)
				return
			}
			if n >= 12 && buf[0] == 0 && buf[4] == 0x63 && buf[5] == 0x6e {
				seen[binary.BigEndian.Uint32(buf[8:])] = true
			}
		}
	}()
	sent := make(chan int)
	go func() {
		count := uint32(0)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				sent <- int(count)
				return
			case <-tick.C:
			}
			msg := []byte{8, 0, 0, 0, 0x63, 0x6e, 0, 0}
			msg = binary.BigEndian.AppendUint32(msg, count)
			binary.BigEndian.PutUint16(msg[2:], checksum(msg))
			if _, err := conn.WriteTo(msg, dst); err != nil && errors.Is(err, net.ErrClosed) {
				return
			}
			count++
		}
	}()
	return func() (int, int) {
		close(done)
		n := <-sent
		_ = conn.SetReadDeadline(time.Now().Add(time.Second)) // the last ones come
		return n, n - <-answers
	}
}
