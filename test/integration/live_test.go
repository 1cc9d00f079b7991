package integration

import (
	"bufio"
	"encoding/json"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// Watch tells of what is there, of what comes by ADD, and of what goes by DEL, in this order,
// and ends after as many as it was told.
func TestWatch(t *testing.T) {
	t.Parallel()
	j := newJoiner(t)
	cmd := exec.Command(program(t, "lnctl"), "watch", "--all", "--count", "5", "-o", "json")
	out, err := cmd.StdoutPipe()
	j.check(err)
	j.check(cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewReader(out)
	next := func() string {
		line, err := lines.ReadBytes('\n')
		j.check(err)
		var e struct {
			Event, Network, Container, Interface string
			Addresses, Names, Ports              []string
		}
		j.check(json.Unmarshal(line, &e))
		return strings.TrimSpace(strings.Join([]string{e.Event, e.Network, e.Container, e.Interface, e.Addresses[0], strings.Join(e.Names, " "), strings.Join(e.Ports, " ")}, " "))
	}
	want := func(want string) {
		t.Helper()
		if got := next(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	want("is aside c2 eth0 10.72.0.2 c2")
	want("is front c1 eth0 10.71.0.2 one c1")
	j.connect(true, "aside", "c1", "--publish", "8088:80")
	want("attached aside c1 eth1 10.72.0.3 one c1 8088:80/tcp")
	j.must(j.front.as("DEL"))
	one, two := next(), next()
	if both := one + "\n" + two; !strings.Contains(both, "detached front c1 eth0 10.71.0.2 one c1") || !strings.Contains(both, "detached aside c1 eth1 10.72.0.3 one c1 8088:80/tcp") {
		t.Errorf("after DEL: %s", both)
	}
	j.check(cmd.Wait())
}

// Top shows which container sends, how much, and its connections.
func TestTop(t *testing.T) {
	t.Parallel()
	j := newJoiner(t)
	lntest.Enter(t, netnsPath("c1"), func() {
		for range 3 { // connections that conntrack knows
			c, err := net.Dial("udp4", "192.0.2.2:9")
			j.check(err)
			_, err = c.Write([]byte("x"))
			j.check(err)
			t.Cleanup(func() { _ = c.Close() })
		}
	})
	stop := j.stream("192.0.2.2")
	var all []struct {
		Container, Network      string
		Sent, Received, Packets uint64
		Flows                   int
	}
	j.check(json.Unmarshal([]byte(j.lnctl(true, "top", "-o", "json", "--interval", "500ms")), &all))
	stop()
	if len(all) != 2 || all[0].Container != "c1" || all[0].Network != "front" {
		t.Fatalf("%+v, want c1 on front first", all)
	}
	// A thousand echoes of 46 bytes in each direction, on a busy machine fewer.
	if c := all[0]; c.Flows != 4 || c.Packets < 100 || c.Packets > 4000 || c.Sent < 46*50 || c.Received < 46*50 {
		t.Errorf("c1: %+v, want 4 flows and 2000 packets a second", c)
	}
	if c := all[1]; c.Flows != 0 || c.Packets > 20 {
		t.Errorf("c2: %+v, want a silent one", c)
	}
	if text := j.lnctl(true, "top", "front", "--interval", "50ms"); !strings.HasPrefix(text, "NETWORK  CONTAINER") || strings.Contains(text, "aside") {
		t.Error(text)
	}
}
