package integration

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
)

// TestConcurrent has many containers come at once to a network that is not
// there yet, half of them go while others come, and all go at once.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	const many = 32
	h := newHost(t)
	before := h.snapshot()
	var adds, more []call
	for i := range many {
		cid := fmt.Sprintf("c%d", i)
		adds = append(adds, attachment("bridge-ln", cid, h.netns(cid), full).as("ADD"))
		cid = fmt.Sprintf("d%d", i)
		if i < many/2 {
			more = append(more, attachment("bridge-ln", cid, h.netns(cid), full).as("ADD"))
		}
	}
	held := h.distinct(adds, h.atOnce(adds))
	h.pingAll(held)

	leave, stay := as("DEL", adds[:many/2]), adds[many/2:]
	replies := h.atOnce(append(more, leave...))
	all := append(h.distinct(more, replies[:len(more)]), held[many:]...) // two addresses each
	for i, a := range all {
		for _, b := range all[:i] {
			if a == b {
				t.Errorf("%s is given twice", a)
			}
		}
	}
	h.pingAll(all)
	h.atOnce(as("DEL", append(more, stay...)))
	if rest := leases(t, "net"); len(rest) > 0 {
		t.Errorf("leases left: %v", rest)
	}
	gc := call{plugin: "bridge-ln", command: "GC", stdin: edit(t, full, keys{"cni.dev/valid-attachments": []string{}})}
	h.must(gc)
	h.same(before)
}

func as(command string, calls []call) []call {
	var out []call
	for _, c := range calls {
		out = append(out, c.as(command))
	}
	return out
}

// atOnce runs all calls at the same time and fails the test unless all
// succeed.
func (h *host) atOnce(calls []call) []reply {
	h.t.Helper()
	cmds := make([]*exec.Cmd, len(calls))
	outs := make([]bytes.Buffer, len(calls))
	for i, c := range calls {
		cmd := exec.Command(program(h.t, c.plugin))
		cmd.Env, cmd.Stdin, cmd.Stdout = c.environ(h.t), strings.NewReader(c.stdin), &outs[i]
		h.check(cmd.Start()) // from this goroutine, which is in the host
		cmds[i] = cmd
	}
	var replies []reply
	for i, cmd := range cmds {
		r := h.reply(calls[i], cmd.Wait(), outs[i].String(), "")
		if r.code != 0 {
			h.t.Errorf("%s %s: code %d: %s", calls[i].command, calls[i].cid, r.code, r.msg)
		}
		replies = append(replies, r)
	}
	return replies
}

// distinct returns the addresses of all results, in their order, and fails the
// test if two are the same.
func (h *host) distinct(calls []call, replies []reply) []netip.Addr {
	h.t.Helper()
	var all []netip.Addr
	owner := map[netip.Addr]string{}
	for i, r := range replies {
		for _, p := range parseResult(h.t, r.stdout).addresses(h.t) {
			a := p.Addr()
			if owner[a] != "" {
				h.t.Errorf("%s is given to %s and %s", a, owner[a], calls[i].cid)
			}
			owner[a] = calls[i].cid
			all = append(all, a)
		}
	}
	if len(all) != 2*len(calls) {
		h.t.Fatalf("%d addresses for %d containers", len(all), len(calls))
	}
	return all
}

func (h *host) pingAll(addrs []netip.Addr) {
	h.t.Helper()
	for _, a := range addrs {
		h.ping("", a)
	}
}
