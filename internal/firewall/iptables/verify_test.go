package iptables

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// Verify names every rule or chain of ours that is missing, and Apply mends it.
func TestVerifyNames(t *testing.T) {
	t.Parallel()
	f := isolate(t)
	n, e := sample(1)
	n.Trusted, e.Ports = n.Trusted[:1], e.Ports[:1]
	mustApply(t, f, n, e)
	all := ruleset(t)
	tried := 0
	command, table := "", ""
	for line := range strings.Lines(all) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasSuffix(line, "-save"):
			command = strings.TrimSuffix(line, "-save")
		case strings.HasPrefix(line, "*"):
			table = line[1:]
		case strings.HasPrefix(line, "-A "):
			words := split(line)
			r := rule{table, words[1], words[2:]}
			runTool(t, append([]string{command, "-t", table, "-D", r.chain}, r.args...)...)
			err := f.Verify(t.Context(), n, e)
			if want := fmt.Sprintf("%s rule %s %s", command, table, r.chain); !errors.Is(err, firewall.ErrMissing) || !strings.Contains(err.Error(), want) {
				t.Errorf("without %s: got %v, want %q", line, err, want)
			}
			mustApply(t, f, n, e)
			tried++
		}
	}
	if tried < 50 {
		t.Errorf("only %d rules were tried", tried)
	}
	runTool(t, "iptables", "-F")
	runTool(t, "iptables", "-X")
	if err := f.Verify(t.Context(), n, e); !errors.Is(err, firewall.ErrMissing) || !strings.Contains(err.Error(), "iptables chain filter LIBNET-INTO") {
		t.Errorf("without chains: %v", err)
	}
	mustApply(t, f, n, e)
	mustRemove(t, f, n, e)
}

func TestTakeOver(t *testing.T) {
	t.Parallel()
	f := isolate(t)
	n, old := plain(1)
	old.Ports = nil
	next := old
	next.Owner = "next"
	renamed := n
	renamed.Name, renamed.Internal = "renamed", false
	mustApply(t, f, n, old)
	var held *firewall.HeldError
	if _, err := f.Apply(t.Context(), renamed, next); !errors.As(err, &held) || held.Owner != firewall.Key(old.Owner) {
		t.Fatalf("apply for the address of a living owner: got %v, want a HeldError", err)
	}
	if err := f.Verify(t.Context(), n, old); err != nil {
		t.Errorf("a refused Apply changed something: %v", err)
	}
	if err := f.Remove(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	mustApply(t, f, renamed, next)
	wantOwners(t, f, "next")
	if out := ruleset(t); strings.Contains(out, n.Name) {
		t.Errorf("the old network's rules are there: %s", out)
	}
	mustRemove(t, f, n, old)
	if err := f.Verify(t.Context(), renamed, next); err != nil {
		t.Error(err)
	}
}

// Several endpoints go at once, and no other goes with them.
func TestRemoveSeveral(t *testing.T) {
	t.Parallel()
	f := isolate(t)
	var networks []firewall.Network
	var all []firewall.Endpoint
	for i := range 3 {
		n, e := plain(i)
		e.Ports = nil
		mustApply(t, f, n, e)
		networks, all = append(networks, n), append(all, e)
	}
	if err := f.Remove(t.Context(), all[:2]...); err != nil {
		t.Fatal(err)
	}
	for i, e := range all[:2] {
		if err := f.Verify(t.Context(), networks[i], e); err == nil {
			t.Errorf("%s still has rules", e.Owner)
		}
	}
	if err := f.Verify(t.Context(), networks[2], all[2]); err != nil {
		t.Error(err)
	}
}
