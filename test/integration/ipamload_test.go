package integration

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// crowd is how many processes run at once.
const crowd = 64

// pool is ipam-ln alone on one subnet.
func pool(t testing.TB, subnet string) string {
	return edit(t, good, keys{"ipam.ranges": raw(`[[{"subnet":"` + subnet + `"}]]`)})
}

// ended is how a call went that may have been killed.
type ended struct {
	reply
	killed bool
}

// inCrowd runs calls, crowd of them at once. With kill, half of them are
// killed with SIGKILL, at some moment of their lives.
func (h *host) inCrowd(calls []call, kill bool) []ended {
	h.t.Helper()
	out := make([]ended, len(calls))
	outs := make([]bytes.Buffer, len(calls))
	errs := make([]error, len(calls))
	free := make(chan struct{}, crowd)
	var all sync.WaitGroup
	for i, c := range calls {
		free <- struct{}{}
		cmd := exec.Command(program(h.t, c.plugin))
		cmd.Env, cmd.Stdin, cmd.Stdout = c.environ(h.t), strings.NewReader(c.stdin), &outs[i]
		h.check(cmd.Start()) // from this goroutine, which is in the host
		if kill && rand.N(2) == 0 {
			time.AfterFunc(rand.N(6*time.Millisecond), func() { _ = cmd.Process.Kill() })
		}
		all.Go(func() {
			errs[i] = cmd.Wait()
			out[i].killed = cmd.ProcessState.ExitCode() < 0
			<-free
		})
	}
	all.Wait()
	for i, c := range calls {
		if !out[i].killed {
			out[i].reply = h.reply(c, errs[i], outs[i].String(), "")
		}
	}
	return out
}

// holders returns each holder's address by the lease files of the network "net", and
// fails the test if one holds two.
func (h *host) holders() map[string]netip.Addr {
	h.t.Helper()
	files, err := os.ReadDir(leaseDir)
	h.check(err)
	held := map[string]netip.Addr{}
	for _, f := range files {
		a, err := netip.ParseAddr(f.Name())
		if err != nil {
			continue
		}
		data, err := os.ReadFile(filepath.Join(leaseDir, f.Name()))
		h.check(err)
		cid, _, _ := strings.Cut(string(data), "\r\n")
		if cid == "" {
			h.t.Errorf("lease %s: %q names no owner", a, data)
		}
		if held[cid].IsValid() {
			h.t.Errorf("%s holds %s and %s", cid, held[cid], a)
		}
		held[cid] = a
	}
	return held
}

// theAddress is the one of a result.
func (h *host) theAddress(r reply) netip.Addr {
	h.t.Helper()
	all := parseResult(h.t, r.stdout).addresses(h.t)
	if len(all) != 1 {
		h.t.Fatalf("addresses %v, want one", all)
	}
	return all[0].Addr()
}

// added are ADD calls for n containers c0, c1, … from number first on.
func added(netns, conf string, first, n int) []call {
	var out []call
	for i := range n {
		out = append(out, attachment("ipam-ln", fmt.Sprintf("c%d", first+i), netns, conf).as("ADD"))
	}
	return out
}

// TestCrowd has 64 processes at once give a thousand addresses and take them
// back.
func TestCrowd(t *testing.T) {
	t.Parallel()
	many := 1000
	if testing.Short() {
		many = 200
	}
	h := newHost(t)
	adds := added(h.netns("pod"), pool(t, "10.1.0.0/22"), 0, many)
	start := time.Now()
	owner := map[netip.Addr]string{}
	for i, r := range h.inCrowd(adds, false) {
		if r.code != 0 {
			t.Fatalf("%s: code %d: %s", adds[i].cid, r.code, r.msg)
		}
		a := h.theAddress(r.reply)
		if owner[a] != "" {
			t.Errorf("%s is given to %s and %s", a, owner[a], adds[i].cid)
		}
		owner[a] = adds[i].cid
	}
	if held := h.holders(); len(owner) != many || len(held) != many {
		t.Errorf("%d addresses given and %d leases, want %d", len(owner), len(held), many)
	}
	middle := time.Now()
	for i, r := range h.inCrowd(as("DEL", adds), false) {
		if r.code != 0 {
			t.Errorf("DEL %s: code %d: %s", adds[i].cid, r.code, r.msg)
		}
	}
	t.Logf("%d ADDs in %s, DELs in %s", many, middle.Sub(start), time.Since(middle))
	if rest := leases(t, "net"); len(rest) > 0 {
		t.Errorf("%d leases left, one is %s", len(rest), rest[0])
	}
}

// TestKilledCrowd kills half of the processes at random moments, and has GC
// clean up. No address may be given twice, and none may be lost: in the end
// every one of the pool can be given.
func TestKilledCrowd(t *testing.T) {
	t.Parallel()
	many, subnet, size := 1000, "10.1.0.0/22", 1021
	if testing.Short() {
		many, subnet, size = 100, "10.1.0.0/25", 125
	}
	h := newHost(t)
	conf, ns := pool(t, subnet), h.netns("pod")
	adds := added(ns, conf, 0, many)
	promised := map[string]netip.Addr{}
	for i, r := range h.inCrowd(adds, true) {
		if !r.killed {
			if r.code != 0 {
				t.Fatalf("%s: code %d: %s", adds[i].cid, r.code, r.msg)
			}
			promised[adds[i].cid] = h.theAddress(r.reply)
		}
	}
	t.Logf("%d of %d ADDs killed", many-len(promised), many)
	h.holdsAtLeast(promised)
	h.collect(conf, promised)
	h.holdsJust(promised)

	var dels []call
	for _, c := range adds {
		if _, ok := promised[c.cid]; ok && len(dels) < many/4 {
			delete(promised, c.cid)
			dels = append(dels, c.as("DEL"))
		}
	}
	h.inCrowd(dels, true)
	h.holdsAtLeast(promised)
	h.collect(conf, promised)
	h.holdsJust(promised)

	fill := added(ns, conf, many, size-len(promised))
	for i, r := range h.inCrowd(fill, false) {
		if r.code != 0 {
			t.Fatalf("the pool has %d free addresses, but %s: code %d: %s", len(fill), fill[i].cid, r.code, r.msg)
		}
		promised[fill[i].cid] = h.theAddress(r.reply)
	}
	h.holdsJust(promised)
}

// collect runs GC for those that are to stay, after some that may be killed.
func (h *host) collect(conf string, stay map[string]netip.Addr) {
	h.t.Helper()
	list := []map[string]string{}
	for cid := range stay {
		list = append(list, map[string]string{"containerID": cid, "ifname": "eth0"})
	}
	gc := call{plugin: "ipam-ln", command: "GC", stdin: edit(h.t, conf, keys{"cni.dev/valid-attachments": list})}
	h.inCrowd([]call{gc, gc, gc, gc}, true)
	h.must(gc)
}

func (h *host) holdsAtLeast(want map[string]netip.Addr) map[string]netip.Addr {
	h.t.Helper()
	held := h.holders()
	for cid, a := range want {
		if held[cid] != a {
			h.t.Fatalf("%s was given %s and holds %s", cid, a, held[cid])
		}
	}
	return held
}

func (h *host) holdsJust(want map[string]netip.Addr) {
	h.t.Helper()
	if held := h.holdsAtLeast(want); len(held) != len(want) {
		h.t.Fatalf("%d hold an address, want %d", len(held), len(want))
	}
}
