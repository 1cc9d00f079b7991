package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/libnet-cni/libnet/internal/bpf"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/naming"
	"github.com/libnet-cni/libnet/internal/responder"
)

// fakeNames are names in the kernel, by their owner.
type fakeNames struct {
	*world
	lacks error // what the kernel lacks; nil: nothing
	agent bool
}

func (f fakeNames) kernel() *naming.Kernel {
	return &naming.Kernel{Answers: f, Records: f.world, Agent: func() (bool, error) { return f.agent, nil }}
}

func (w fakeLinks) HostIndex(context.Context, link.Ref) (int, error) { return 7, nil }

func (f fakeNames) Put(_ context.Context, m, _ *responder.Member) (whole bool, err error) {
	if f.lacks != nil {
		return true, f.lacks
	}
	// The real one may have done a part.
	f.things["names "+m.Owner] = "part"
	return true, f.step(func() { f.things["names "+m.Owner] = fmt.Sprint(m.Names) })
}

func (f fakeNames) Remove(_ context.Context, m *responder.Member, _ bool) error {
	return f.step(func() { delete(f.things, "names "+m.Owner) })
}

func (f fakeNames) RemoveHost(_ context.Context, _ *responder.Member, empty func() (bool, error)) error {
	_, err := empty()
	return err
}

func (f fakeNames) Verify(_ context.Context, m *responder.Member) error {
	if f.things["names "+m.Owner] != fmt.Sprint(m.Names) {
		return responder.ErrDifferent
	}
	return nil
}

func (f fakeNames) Strays(context.Context, bool, func() (responder.Known, error)) ([]string, error) {
	return nil, nil
}

func (f fakeNames) Whole() (bool, error) { return true, nil }

func (f fakeNames) MarkWhole(context.Context) error { return nil }

func (f fakeNames) Tidy(context.Context) error { return nil }

func (f fakeNames) Available(context.Context) error { return f.lacks }

// named asks for names that the kernel answers for.
func named(by model.Responder) EndpointOption {
	return WithNames(model.NamesOf([]string{"web"}, "c1", "", by))
}

// The kernel is told of names that it is to answer for; of others it is not.
func TestWhoAnswers(t *testing.T) {
	lacks := fmt.Errorf("%w: bpf(2) is missing", bpf.ErrUnsupported)
	for _, row := range []struct {
		by       model.Responder
		agent    bool
		lacks    error
		inKernel bool
		refused  bool
		warned   bool
	}{
		{by: model.RespondAgent},
		{by: model.RespondAgent, lacks: lacks},
		{by: model.RespondBPF, inKernel: true},
		{by: model.RespondBPF, agent: true, inKernel: true},
		{by: model.RespondBPF, lacks: lacks, refused: true},
		{by: model.RespondAuto, inKernel: true},
		{by: model.RespondAuto, agent: true},
		{by: model.RespondAuto, agent: true, lacks: lacks},
		{by: model.RespondAuto, lacks: lacks, warned: true},
	} {
		t.Run(fmt.Sprintf("%s agent=%v lacks=%v", row.by, row.agent, row.lacks != nil), func(t *testing.T) {
			ctx := context.Background()
			w := newWorld()
			n, sb := faultNetwork(t, w)
			n.c.names = fakeNames{world: w, lacks: row.lacks, agent: row.agent}.kernel()
			e, err := n.Attach(ctx, sb, named(row.by))
			var unsupported *model.UnsupportedError
			if refused := errors.As(err, &unsupported); refused != row.refused || !refused && err != nil {
				t.Fatalf("error %v, refused is to be %v", err, row.refused)
			}
			if row.refused {
				if unsupported.Key != "names.responder" || len(w.snapshot()) > 0 {
					t.Errorf("key %q; left %v", unsupported.Key, w.snapshot())
				}
				return
			}
			if _, is := w.things["names libnet:net1/c1/eth0"]; is != row.inKernel {
				t.Errorf("in the kernel: %v, want %v", is, row.inKernel)
			}
			if warned := e.Unanswered() != nil; warned != row.warned {
				t.Errorf("warning %v, want %v", e.Unanswered(), row.warned)
			}
			if err := e.Verify(ctx); err != nil {
				t.Errorf("Verify: %v", err)
			}
			if again, err := n.Attach(ctx, sb, named(row.by)); err != nil || again.Record().Names.Responder != e.Record().Names.Responder {
				t.Errorf("Attach again: %v", err)
			}
			if err := n.Remove(ctx, e.ID()); err != nil {
				t.Fatal(err)
			}
			if _, is := w.things["names libnet:net1/c1/eth0"]; is {
				t.Error("names are left")
			}
		})
	}
}

// Names of hosts that meet by an agent are the agent's.
func TestAgentsNetworkIsNotAnsweredByKernel(t *testing.T) {
	w := newWorld()
	k := fakeNames{world: w}.kernel()
	var bad *model.ConfigError
	if _, err := k.Choose(model.NamesOf(nil, "c1", "", model.RespondBPF), true); !errors.As(err, &bad) || bad.Key != "names.responder" {
		t.Errorf("error %v", err)
	}
	if rec, err := k.Choose(model.NamesOf(nil, "c1", "", model.RespondAuto), true); err != nil || rec.Responder != "" {
		t.Errorf("%+v, %v", rec, err)
	}
}
