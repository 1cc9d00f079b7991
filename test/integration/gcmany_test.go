package integration

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// GC of many attachments, whose links go by one request, is killed again and again, and comes
// several at once, beside ADDs and DELs of others: what is valid goes on, nothing of the rest is
// left, and none waits for another one for ever.
func TestGCOfMany(t *testing.T) {
	t.Parallel()
	const many, dead, valid = 40, 15, 4
	h := newHost(t)
	before := h.snapshot()
	var adds []call
	for i := range many {
		cid, conf := fmt.Sprintf("c%d", i), full
		if i%10 == 9 { // its connections end while its ports are locked
			conf = edit(t, full, keys{"runtimeConfig.portMappings": raw(fmt.Sprintf(`[{"hostPort":%d,"containerPort":80,"protocol":"udp"}]`, 18000+i))})
		}
		adds = append(adds, attachment("bridge-ln", cid, h.netns(cid), conf).as("ADD"))
	}
	held := h.distinct(adds, h.atOnce(adds))
	kept := held[:2*valid] // two addresses each
	for i := many - dead; i < many; i++ {
		h.loseNetns(fmt.Sprintf("c%d", i))
	}
	var attachments []map[string]string
	for i := range valid {
		attachments = append(attachments, map[string]string{"containerID": fmt.Sprintf("c%d", i), "ifname": "eth0"})
	}
	gc := call{plugin: "bridge-ln", command: "GC", stdin: edit(t, full, keys{"cniVersion": "1.1.0", "cni.dev/valid-attachments": attachments})}
	for range 8 {
		h.killed(gc, rand.N(20*time.Millisecond))
	}
	h.pingAll(kept)
	late := attachment("bridge-ln", "late", h.netns("late"), full)
	start := time.Now()
	h.atOnce([]call{gc, late.as("DEL"), gc, adds[many-1].as("DEL"), gc})
	if took := time.Since(start); took > lntest.WaitForAnswer {
		t.Errorf("three GCs and two DELs at once take %s", took)
	}
	h.pingAll(kept)
	if rest := leases(t, "net"); len(rest) != 2*valid {
		t.Errorf("%d leases are left, want %d: %v", len(rest), 2*valid, rest)
	}
	links, err := netlink.LinkList()
	h.check(err)
	ports := 0
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Alias, "libnet:net/c") {
			ports++
		}
	}
	if ports != valid {
		t.Errorf("%d links of containers are left, want %d", ports, valid)
	}
	h.must(call{plugin: "bridge-ln", command: "GC", stdin: edit(t, full, keys{"cniVersion": "1.1.0", "cni.dev/valid-attachments": []string{}})})
	h.same(before)
}

// killed begins a call, and kills it after a time unless it has come to its end.
func (h *host) killed(c call, after time.Duration) {
	h.t.Helper()
	cmd := exec.Command(program(h.t, c.plugin))
	cmd.Env, cmd.Stdin = c.environ(h.t), strings.NewReader(c.stdin)
	h.check(cmd.Start())
	time.Sleep(after) // where it is then does not matter
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}
