package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
)

func (s survey) checkAttachments(ctx context.Context) []Finding {
	looked := 0
	var all []Finding
	for _, n := range s.networks {
		for _, e := range s.endpoints[n] {
			looked++
			want := e.expectation()
			want.butForwarding = true
			if err := e.verifyAs(ctx, want); err != nil {
				all = append(all, differing("attachments", err))
			}
		}
	}
	return orWell(all, "attachments", looked)
}

func (s survey) checkPublications(ctx context.Context) []Finding {
	recs, _ := s.c.publicationRecords()
	looked := 0
	var all []Finding
	for _, rec := range recs {
		if a := s.c.attachment(rec); a.Life == Alive {
			looked++
			if err := s.c.verifyPublication(ctx, rec); err != nil {
				all = append(all, differing("portmap ports", err))
			}
		}
	}
	return orWell(all, "portmap ports", looked)
}

// differing is what Verify said, with the advice for it: what concerns rules, the
// bridge, its ports or leases Mend puts back, and Rebuild.
func differing(about string, err error) Finding {
	return Finding{about, oneLine(err), "lnctl repair; if that leaves it, restart the container"}
}

// orWell returns what was found, or that all is well.
func orWell(found []Finding, about string, looked int) []Finding {
	switch {
	case looked == 0:
		return []Finding{{About: about, Found: "none"}}
	case len(found) == 0:
		return []Finding{{About: about, Found: fmt.Sprintf("%d, as they were made", looked)}}
	case len(found) > maxFindings:
		more := Finding{about, fmt.Sprintf("%d more of %d", len(found)-maxFindings, looked), found[maxFindings].Advice}
		return append(found[:maxFindings:maxFindings], more)
	}
	return found
}

// maxFindings is how many attachments are named that have the same trouble.
const maxFindings = 10

// checkGuards finds bridges whose guard in nf_tables is another one than their index
// asks for, as by an element that another program added under our owner's name: CHECK
// asks for the elements that it wants, and cannot see more of them.
func (s survey) checkGuards(ctx context.Context) []Finding {
	bridges, err := s.c.guards.Bridges()
	if err == nil && (len(bridges) == 0 || s.c.intact(ctx, model.BackendNFTables, firewall.Network{}) != nil) {
		return nil // checkRules tells of tables that are not there
	}
	var inPlace firewall.Recorded
	if err == nil {
		inPlace, err = s.c.recorder.Recorded(ctx)
	}
	if err != nil {
		return []Finding{{"guards", "cannot be told: " + oneLine(err), "run lnctl doctor as root"}}
	}
	var all []Finding
	for _, bridge := range bridges {
		differs, err := s.guardDiffers(ctx, bridge, inPlace)
		switch {
		case errors.Is(err, state.ErrCorrupt): // checkRecords tells
		case err != nil:
			all = append(all, Finding{"guards", fmt.Sprintf("bridge %s: cannot be told: %s", bridge, oneLine(err)), "try again"})
		case differs != "":
			all = append(all, Finding{"guards", fmt.Sprintf("bridge %s: %s", bridge, differs), "look for what changed our sets (nft list table inet libnet). " +
				"lnctl repair adds what is missing; delete what is too much by nft delete element"})
		}
	}
	return all
}

// guardDiffers says how the guard in place is another one than the bridge's index asks
// for; empty: it is not. It looks again where it differs, as a call may have been at it.
func (s survey) guardDiffers(ctx context.Context, bridge string, inPlace firewall.Recorded) (string, error) {
	b, err := s.c.guards.LockBridge(ctx, bridge, unix.LOCK_SH, state.OnlyExisting)
	if errors.Is(err, state.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer b.Unlock()
	guards, err := b.Guards()
	byNFT := func(g state.Guard) bool { return s.c.rulesOf(g.Backend) == s.c.nftables }
	if err != nil || !slices.ContainsFunc(guards, byNFT) {
		return "", err
	}
	want, err := joinGuards(bridgeRules(bridge), guards)
	if err != nil {
		return "", err
	}
	got := inPlace.Networks[firewall.Key(guardOwner(bridge))]
	if guardWords(want) == guardWords(got) {
		return "", nil
	}
	if inPlace, err = s.c.recorder.Recorded(ctx); err != nil {
		return "", err
	}
	if got = inPlace.Networks[firewall.Key(guardOwner(bridge))]; guardWords(want) == guardWords(got) {
		return "", nil
	}
	return fmt.Sprintf("its guard is %s, and its networks ask for %s", guardWords(got), guardWords(want)), nil
}

// guardWords names what closes a bridge, or opens a closed one.
func guardWords(n firewall.Network) string {
	var all []string
	for _, w := range []struct {
		is   bool
		word string
	}{{n.Internal, "internal"}, {n.NoICC, "icc false"}, {n.Apart, "apart"}, {n.NoHost, "isolated"}} {
		if w.is {
			all = append(all, w.word)
		}
	}
	for _, f := range []struct {
		name   string
		policy firewall.Policy
	}{{"IPv4", n.IPv4}, {"IPv6", n.IPv6}} {
		switch f.policy {
		case firewall.Published:
			all = append(all, f.name+" nat")
		case firewall.Routed:
			all = append(all, f.name+" routed")
		}
	}
	if trusted := slices.Sorted(slices.Values(n.Trusted)); len(trusted) > 0 {
		all = append(all, "trusted "+strings.Join(slices.Compact(trusted), " "))
	}
	if n.AcceptMark != nil {
		all = append(all, fmt.Sprintf("mark 0x%x/0x%x", n.AcceptMark.Value, n.AcceptMark.Mask))
	}
	if len(all) == 0 {
		return "open"
	}
	return "(" + strings.Join(all, ", ") + ")"
}
