package engine

import (
	"context"
	"errors"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/either"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
)

// tired is the rules of a Controller that has no time left after some changes.
type tired struct {
	either.Rules
	left int
	end  context.CancelFunc
}

func (r *tired) Apply(ctx context.Context, n firewall.Network, e firewall.Endpoint) (bool, error) {
	if e.Owner != "" {
		if r.left == 0 {
			r.end()
			return false, ctx.Err()
		}
		r.left--
	}
	return r.Rules.Apply(ctx, n, e)
}

// However short its time, each Mend brings back rules that the one before did not
// come to, and Status of each says that some are missing until none is.
func TestMendGoesOn(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx := context.Background()
	n := h.network("10.1.0.0/24", WithConfig(model.NetworkConfig{Gateway: true, GatewayModeIPv4: model.GatewayNAT, Backend: model.BackendIPTables}))
	const all, each = 5, 2
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		if _, err := h.web(n, id); err != nil {
			t.Fatal(err)
		}
	}
	recs, err := h.endpoints.Endpoints("net1")
	if err != nil || len(recs) != all {
		t.Fatalf("%d records, %v", len(recs), err)
	}
	for _, rec := range recs {
		if err := h.rules.IPTables.Remove(ctx, firewall.Endpoint{Owner: life.IDOf(rec).String()}); err != nil {
			t.Fatal(err)
		}
	}
	whole := h.rules.IPTables
	for want := each; ; want = min(want+each, all) {
		if err := n.lacks(ctx); !errors.Is(err, firewall.ErrMissing) {
			t.Errorf("before %d have their rules: %v, want ErrMissing", want, err)
		}
		bounded, end := context.WithCancel(ctx)
		h.rules.IPTables = &tired{whole, each, end}
		h.renewPorts()
		_, err := h.Mend(bounded, PutBack)
		h.rules.IPTables = whole
		h.renewPorts()
		end()
		owners, listErr := h.rules.IPTables.List(ctx)
		if listErr != nil || len(owners) != want {
			t.Fatalf("%d have their rules, want %d: %v, %v", len(owners), want, err, listErr)
		}
		if want == all {
			break
		}
	}
	if err := n.lacks(ctx); err != nil {
		t.Errorf("at last: %v", err)
	}
}
