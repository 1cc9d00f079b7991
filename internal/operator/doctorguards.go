package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/guard"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
)

// checkGuards finds bridges whose guard in nf_tables is another one than their index
// asks for, as by an element that another program added under our owner's name: CHECK
// asks for the elements that it wants, and cannot see more of them.
func (s survey) checkGuards(ctx context.Context) []Finding {
	book := s.o.ports.Guard
	bridges, err := book.Index.Bridges()
	losses, lossErr := s.o.losses(ctx)
	err = errors.Join(err, lossErr)
	if err == nil && len(losses) == 0 && (len(bridges) == 0 || s.o.rules.Intact(ctx, model.BackendNFTables, firewall.Network{}) != nil) {
		return nil // checkRules tells of tables that are not there
	}
	var inPlace firewall.Recorded
	if err == nil {
		inPlace, err = s.o.nft.Recorded(ctx)
	}
	if err != nil {
		return []Finding{{"guards", "cannot be told: " + oneLine(err), "run lnctl doctor as root"}}
	}
	all := s.guardsLost(losses, inPlace)
	for _, bridge := range bridges {
		if slices.ContainsFunc(losses, func(l guard.Loss) bool { return l.Bridge == bridge }) {
			continue // what is in place may be right, and the index wrong
		}
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

// guardsLost tells of bridges of which no record, or not their index, says what closed
// them for the containers that are there.
func (s survey) guardsLost(losses []guard.Loss, inPlace firewall.Recorded) []Finding {
	var all []Finding
	for _, l := range losses {
		g, ruled := inPlace.Networks[firewall.Key(plan.GuardOwner(l.Bridge))]
		now := "nothing closes it now"
		if guardWords(g) != open {
			now = "its rules still do: " + guardWords(g)
		}
		if len(l.Guards) > 0 {
			all = append(all, Finding{"guards", fmt.Sprintf("bridge %s: its index has lost what network %q closed of it; %s", l.Bridge, l.Guards[0].Network, now),
				"lnctl repair writes it, and puts the rules back"})
		}
		for _, o := range l.Untold {
			_, has := inPlace.Endpoints[firewall.Key(o.Owner)]
			ruled = ruled || has // then all rules are there, by which repair writes the records
		}
		if len(l.Untold) > 0 && !ruled {
			id, _ := model.ParseOwner(l.Untold[0].Owner)
			all = append(all, Finding{"guards", fmt.Sprintf("bridge %s: no record tells whether it was closed for %s %s in network %q, and nothing closes it now", l.Bridge, id.ContainerID, id.IfName, id.Network),
				"lnctl repair --conf-dir with the directory of the network's configuration, or start a container of the network"})
		}
	}
	return all
}

// guardDiffers says how the guard in place is another one than the bridge's index asks
// for; empty: it is not. It looks again where it differs, as a call may have been at it.
func (s survey) guardDiffers(ctx context.Context, bridge string, inPlace firewall.Recorded) (says string, err error) {
	key := firewall.Key(plan.GuardOwner(bridge))
	err = s.o.ports.Guard.Asked(ctx, bridge, func(want firewall.Network) error {
		got := inPlace.Networks[key]
		if guardWords(want) == guardWords(got) {
			return nil
		}
		now, err := s.o.nft.Recorded(ctx)
		if err != nil {
			return err
		}
		if got = now.Networks[key]; guardWords(want) != guardWords(got) {
			says = fmt.Sprintf("its guard is %s, and its networks ask for %s", guardWords(got), guardWords(want))
		}
		return nil
	})
	return says, err
}

// open is what guardWords says of a bridge without a guard.
const open = "open"

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
		return open
	}
	return "(" + strings.Join(all, ", ") + ")"
}
