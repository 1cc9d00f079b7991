package operator

import (
	"cmp"
	"context"
	"fmt"

	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/responder"
	"github.com/libnet-cni/libnet/internal/state"
)

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
