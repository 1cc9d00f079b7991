package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// The words of nft, as the reference plugin takes them.
const (
	fromWorld   = `,"conditionsV4":["ip","saddr","192.0.2.0/24"]`
	notFromNear = `,"conditionsV4":["ip","saddr","!=","{","192.0.2.2",",","10.99.0.0/24","}"],"conditionsV6":["iifname","\"nosuch\""]`
)

func TestConditions(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.serve()
	before := h.ruleset()
	for keys, open := range map[string]bool{fromWorld: true, notFromNear: false, fromWorld + `,"backend":"nftables","markMasqBit":5`: true} {
		h.must("STATUS", "", "", keys)
		for range 2 {
			h.must("ADD", "c1", h.a, publishing(web)+keys)
		}
		if h.reaches("8080", open) != open {
			t.Errorf("%s: the world reaches the port: %v, want %v", keys, !open, open)
		}
		h.must("CHECK", "c1", h.a, publishing(web)+keys)
		if got := h.run("CHECK", "c1", h.a, publishing(web)+`,"conditionsV4":["counter"]`); got.Code != 103 {
			t.Errorf("CHECK with other words: code %d: %s", got.Code, got.Msg)
		}
		h.must("DEL", "c1", "", "")
		if after := h.ruleset(); after != before {
			t.Errorf("%s: rules are left:\n%s", keys, after)
		}
	}
}

// A publication with other words, or with none, leaves the others alone.
func TestConditionsOfSeveral(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.serve()
	before := h.ruleset()
	ports := map[string]string{"c1": "8081", "c2": "8082", "c3": "8083"}
	words := map[string]string{"c1": fromWorld, "c2": notFromNear, "c3": ""}
	call := func(command, cid string) {
		h.must(command, cid, h.a, publishing(`{"hostPort":`+ports[cid]+`,"containerPort":80}`)+words[cid]+`,"snat":false`)
	}
	want := map[string]bool{}
	wantReached := func() {
		t.Helper()
		for cid, port := range ports {
			if got := h.reaches(port, want[cid]); got != want[cid] {
				t.Errorf("the world reaches %s: %v, want %v", cid, got, want[cid])
			}
		}
	}
	for _, cid := range []string{"c1", "c2", "c3"} {
		call("ADD", cid)
		want[cid] = words[cid] != notFromNear
		wantReached()
	}
	if got := h.run("ADD", "c4", h.a, publishing(`{"hostPort":8081,"containerPort":80}`)); got.Code != 101 {
		t.Errorf("a port that another one has with conditions: code %d: %s", got.Code, got.Msg)
	}
	for _, cid := range []string{"c1", "c2", "c3"} {
		call("CHECK", cid)
	}
	for _, cid := range []string{"c2", "c1"} {
		h.must("DEL", cid, "", "")
		want[cid] = false
		wantReached()
	}
	h.must("GC", "", "", `,"cni.dev/valid-attachments":[]`)
	if after := h.ruleset(); after != before {
		t.Errorf("rules are left:\n%s", after)
	}
}

// A wrong word is named, and nothing is left of it.
func TestConditionsRefused(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	before := h.ruleset()
	for keys, says := range map[string]string{
		`"conditionsV4":["ip","saddr","10.0.0.0/8x"]`:                   `conditionsV4: ["ip","saddr","10.0.0.0/8x"]: invalid: nft: `,
		`"conditionsV4":["ip6","saddr","::1"]`:                          `nft: conflicting protocols specified: ip vs. ip6`,
		`"conditionsV4":["accept\nflush ruleset"]`:                      `conditionsV4: ["accept\nflush ruleset"]: want words without control characters`,
		`"conditionsV4":["counter;flush","ruleset"]`:                    `conditionsV4: ["counter;flush","ruleset"]: invalid: "counter;flush" has ";"`,
		`"conditionsV4":["counter","#"]`:                                `conditionsV4: ["counter","#"]`,
		`"conditionsV4":["counter","}","flush","ruleset"]`:              `conditionsV4: ["counter","}","flush","ruleset"]`,
		`"conditionsV4":["iif","lo"],"backend":"iptables"`:              `conditionsV4: ["iif","lo"]: these are words of nftables`,
		`"conditionsV4":["iif","lo"],"conditionsV6":["-i","lo"]`:        `conditionsV6: ["-i","lo"]: these are words of iptables`,
		`"conditionsV6":["iif","lo"],"externalSetMarkChain":"THEIRS"`:   `conditionsV6: ["iif","lo"]: these are words of nftables`,
		`"externalSetMarkChain":"THEIRS","backend":"nftables"`:          `externalSetMarkChain: "THEIRS": is of iptables`,
		`"conditionsV4":["ip","saddr","10.0.0.0/8","goto","elsewhere"]`: `nft: Statement after terminal statement has no effect`,
	} {
		got := h.run("ADD", "c1", h.a, publishing(web)+","+keys)
		if got.Code != 7 || !strings.Contains(got.Msg, says) {
			t.Errorf("%s: code %d: %s; want 7, %q", keys, got.Code, got.Msg, says)
		}
		if after := h.ruleset(); after != before {
			t.Errorf("%s: rules are left:\n%s", keys, after)
		}
		if left, err := os.ReadDir("/run/libnet/portmap/networks"); err == nil && len(left) > 0 {
			t.Errorf("%s: %s has %v", keys, "/run/libnet/portmap/networks", left)
		}
	}
}

// Only a call that writes conditions needs nft.
func TestConditionsWithoutNFT(t *testing.T) {
	h := newHost(t)
	h.serve()
	before := h.ruleset()
	path := os.Getenv("PATH")
	t.Setenv("PATH", t.TempDir())
	if got := h.run("ADD", "c1", h.a, publishing(web)+fromWorld); got.Code != 7 || !strings.Contains(got.Msg, `conditionsV4: ["ip","saddr","192.0.2.0/24"]: `) || !strings.Contains(got.Msg, `"nft"`) {
		t.Errorf("ADD: code %d: %s", got.Code, got.Msg)
	}
	if got := h.run("STATUS", "", "", fromWorld); got.Code != 50 || !strings.Contains(got.Msg, `"nft"`) {
		t.Errorf("STATUS: code %d: %s", got.Code, got.Msg)
	}
	h.must("STATUS", "", "", "")
	h.must("ADD", "c2", h.a, publishing(web))
	t.Setenv("PATH", path)
	h.must("DEL", "c2", "", "")
	h.must("ADD", "c1", h.a, publishing(web)+fromWorld)
	t.Setenv("PATH", t.TempDir())
	h.must("CHECK", "c1", h.a, publishing(web)+fromWorld)
	h.must("DEL", "c1", "", "") // these two start nothing
	t.Setenv("PATH", path)
	if after := h.ruleset(); after != before {
		t.Errorf("rules are left:\n%s", after)
	}
}

// The reference plugin is asked what the words mean by themselves.
func TestConditionsAsTheReference(t *testing.T) {
	t.Parallel()
	reference := os.Getenv("TOOLS") + "/portmap"
	if _, err := os.Stat(reference); err != nil {
		t.Skip("no reference plugin: ", err)
	}
	h := newHost(t)
	h.serve()
	for _, words := range []string{
		`["ip","saddr","192.0.2.0/24"]`, `["ip","saddr","10.0.0.0/8"]`, `["tcp","sport","1024-65535"]`, `["udp","sport","1024-65535"]`,
		`["iifname","uplink"]`, `["iifname","!=","\"uplink\""]`, `["meta","l4proto","{","tcp,","udp","}"]`, `["ct","original","saddr","192.0.2.2"]`,
		`["ip daddr 192.0.2.1"]`, `["ip","daddr","10.99.0.1"]`, `[""]`, `[]`, `["counter"]`,
	} {
		// Whether an answer comes is not known before: a difference counts if it stays
		// however long each waits.
		var ours, theirs [2]bool
		for _, patience := range []time.Duration{lntest.WaitForNone, lntest.WaitForAnswer} {
			if ours, theirs = h.answers(reference, words, patience); ours == theirs {
				break
			}
		}
		if ours != theirs {
			t.Errorf("%s: the world and the host: %v; with the reference plugin %v", words, ours, theirs)
		}
	}
}

// answers says whether the world, and the host, reach the port, published by our plugin with
// these conditions and by the reference plugin.
func (h *host) answers(reference, words string, patience time.Duration) (ours, theirs [2]bool) {
	h.t.Helper()
	reached := func() [2]bool {
		return [2]bool{h.reachesFrom(h.world, "192.0.2.1", "8080", patience), h.reachesFrom("/proc/thread-self/ns/net", "10.99.0.1", "8080", patience)}
	}
	conf := publishing(`{"hostPort":8080,"containerPort":80,"protocol":"tcp"}`) + `,"backend":"nftables","conditionsV4":` + words
	h.must("ADD", "c1", h.a, conf)
	ours = reached()
	h.must("DEL", "c1", "", "")

	cmd := exec.Command(reference)
	cmd.Env = append(os.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_NETNS="+h.a, "CNI_IFNAME=eth0", "CNI_PATH=/")
	cmd.Stdin = strings.NewReader(`{"cniVersion":"1.1.0","name":"net1","type":"portmap"` + conf + `}`)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("reference with %s: %v: %s", words, err, out)
	}
	theirs = reached()
	if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
		h.t.Fatalf("nft: %v: %s", err, out)
	}
	return ours, theirs
}
