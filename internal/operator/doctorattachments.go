package operator

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/responder"
	"github.com/libnet-cni/libnet/internal/state"
)

func (s survey) checkAttachments(ctx context.Context) []Finding {
	looked := 0
	var all []Finding
	for _, n := range s.networks {
		for _, e := range s.endpoints[n] {
			looked++
			if err := e.VerifyButForwarding(ctx); err != nil {
				all = append(all, differing("attachments", err))
			}
		}
	}
	return orWell(all, "attachments", looked)
}

func (s survey) checkPublications(ctx context.Context) []Finding {
	recs, _ := s.o.ports.PublicationRecords()
	looked := 0
	var all []Finding
	for _, rec := range recs {
		if a := s.o.attachment(rec); a.Life == Alive && !isService(a.ID) { // checkServices looks at those
			looked++
			if err := s.o.ports.VerifyPublication(ctx, rec); err != nil {
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

func (s survey) checkDead() []Finding {
	var all []Finding
	for _, id := range s.dead {
		all = append(all, Finding{"dead attachments", fmt.Sprintf("%s %s in network %q", id.ContainerID, id.IfName, id.Network),
			"lnctl gc removes it and frees its addresses"})
	}
	if len(all) == 0 {
		return []Finding{{About: "dead attachments", Found: "none"}}
	}
	return all
}

func (s survey) checkPools(ctx context.Context) []Finding {
	ok := Finding{About: "address pools", Found: "all have room"}
	var all []Finding
	for _, n := range s.networks {
		pool, is := n.IPAM().(*address.Pool)
		if !is {
			continue
		}
		problem := pool.Shortage(ctx)
		if problem == "" {
			continue
		}
		advice := "lnctl gc frees what the dead hold; else give the network a larger subnet or another range"
		if strings.Contains(problem, unix.EROFS.Error()) || strings.Contains(problem, unix.EACCES.Error()) {
			advice = "ADD and DEL write there: mount " + pool.DataDir() + " writable, or name another ipam.dataDir"
		}
		all = append(all, Finding{"address pool", fmt.Sprintf("network %q: %s", n.Name(), problem), advice})
	}
	if len(all) == 0 {
		return []Finding{ok}
	}
	return all
}

// checkNames looks for names in the kernel that no record explains: queries are answered with
// addresses that may be others' by now.
func (s survey) checkNames(ctx context.Context) []Finding {
	const about = "names"
	strays, err := s.o.StrayNames(ctx)
	if err != nil {
		return []Finding{{about, "those in the kernel cannot be told: " + oneLine(err), "run lnctl doctor as root"}}
	}
	var all []Finding
	for _, stray := range strays {
		all = append(all, Finding{about, cmp.Or(stray, "a link") + " in the kernel, of no attachment", "lnctl repair removes it; so does GC"})
	}
	if len(all) > maxFindings {
		all = append(all[:maxFindings:maxFindings], Finding{about, fmt.Sprintf("%d more in the kernel, of no attachment", len(all)-maxFindings), all[0].Advice})
	}
	return all
}

// names are those that the kernel answers for an attachment whose record was lost; nil: none.
func (r *rebuilder) names(ctx context.Context, id model.ID) (*state.Names, error) {
	own, domain, err := responder.New(r.o.StateDir, r.o.kernel).Recover(ctx, id.String(), id.Network)
	if err != nil || len(own) == 0 {
		return nil, err
	}
	return &state.Names{Own: own, Domain: domain, Responder: string(model.RespondBPF), Link: r.owned[id].Index}, nil
}
