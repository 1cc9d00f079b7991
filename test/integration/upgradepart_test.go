package integration

import (
	"strings"
	"testing"
)

// An upgrade whose first calls only take a network away leaves the bridge closed for
// the network that stays, though what closed it had the other one's name.
func TestUpgradeBeginsWithRemoval(t *testing.T) {
	old := buildPrevious(t)
	h := newHost(t)
	h.world()
	p := sharedPair{"nftables", [2]sharedMode{sharedModes[0], sharedModes[0]}}
	var both [2]call
	for i := range both {
		both[i] = p.call(t, i)
		h.netns(both[i].cid)
		if r := h.runProgram(old+"/bridge-ln", both[i].as("ADD")); r.code != 0 {
			t.Fatal(r.msg)
		}
	}
	before := h.closedBy()
	h.must(both[1].as("DEL")) // the last that was attached: the elements have its name
	if got := h.closedBy(); len(before) == 0 || len(got) != len(before) {
		t.Errorf("closed after DEL: %v, want as many as %v", got, before)
	}
	h.must(call{plugin: "bridge-ln", command: "GC", stdin: edit(t, both[1].stdin, keys{"cni.dev/valid-attachments": []string{}})})
	got := h.closedBy()
	if len(got) != len(before) {
		t.Errorf("closed after GC of the other network: %v, want as many as %v", got, before)
	}
	for _, line := range got {
		if !strings.Contains(line, `"libnet-bridge:brs"`) {
			t.Errorf("not the guard's: %s", line)
		}
	}
	h.must(both[0].as("STATUS"))
	h.must(both[0].as("DEL"))
	h.must(call{plugin: "bridge-ln", command: "GC", stdin: edit(t, both[0].stdin, keys{"cni.dev/valid-attachments": []string{}})})
	h.nothingOfRules()
}

// closedBy returns the elements that keep connections from outside out.
func (h *host) closedBy() (all []string) {
	h.t.Helper()
	for _, line := range h.allRules() {
		if strings.Contains(line, "set closed element") {
			all = append(all, line)
		}
	}
	return all
}
