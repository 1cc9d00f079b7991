package naming

import (
	"context"
	"errors"
	"fmt"

	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/responder"
	"github.com/libnet-cni/libnet/internal/state"
)

// answerer is a *responder.Responder.
type answerer interface {
	Put(ctx context.Context, m, before *responder.Member) (whole bool, err error)
	Whole() (bool, error)
	MarkWhole(ctx context.Context) error
	Remove(ctx context.Context, m *responder.Member, complete bool) error
	RemoveHost(ctx context.Context, m *responder.Member, empty func() (bool, error)) error
	Verify(ctx context.Context, m *responder.Member) error
	Strays(ctx context.Context, remove bool, known func() (responder.Known, error)) ([]string, error)
	Available(ctx context.Context) error
	Tidy(ctx context.Context) error
}

// records are those of attachments.
type records interface {
	Endpoints(network string) ([]state.Endpoint, error)
	EndpointNetworks() ([]string, error)
	HasEndpoint(network string, but state.Endpoint) (bool, error)
}

// Kernel has the kernel of this host answer for names.
type Kernel struct {
	Answers answerer
	Records records
	// Agent says whether ln-agent answers in this network namespace.
	Agent func() (bool, error)
}

// byKernel is what a record says of names that the kernel answers for.
const byKernel = string(model.RespondBPF)

// Choose returns what the record of an attachment is to say of its names; nil: there are none.
// The network is an agent's if it says so: the names of its other hosts only ln-agent knows.
func (k *Kernel) Choose(n *model.Names, agents bool) (*state.Names, error) {
	if n == nil {
		return nil, nil
	}
	rec := &state.Names{Own: n.Own, Domain: n.Domain}
	switch {
	case n.Responder == model.RespondBPF && agents:
		return nil, model.BadConfig("names.responder", fmt.Sprintf("%q", n.Responder),
			`want "agent" or "auto": the hosts of this network meet by ln-agent, which alone knows the names of the other hosts`)
	case n.Responder == model.RespondBPF:
		rec.Responder = byKernel
	case n.Responder == model.RespondAuto && !agents:
		answered, err := k.Agent()
		if err != nil {
			return nil, err
		}
		if !answered {
			rec.Responder = byKernel
		}
	}
	return rec, nil
}

// MemberOf is what the kernel is told of an attachment.
func MemberOf(rec *state.Endpoint) *responder.Member {
	m := &responder.Member{Owner: life.IDOf(*rec).String(), Network: rec.Network, Container: rec.ContainerID}
	if rec.Names != nil {
		m.Domain, m.Names, m.Link = rec.Names.Domain, rec.Names.Own, rec.Names.Link
	}
	m.Addresses, m.Gateways = rec.NamedAddrs()
	return m
}

// ByKernel says that the kernel answers for an attachment.
func ByKernel(rec *state.Endpoint) bool { return rec.Names != nil && rec.Names.Responder == byKernel }

// Put has the kernel answer for an attachment, and answer it; one that it does not answer for
// is no error. It is whole unless names of others may be lost: see MarkWhole.
func (k *Kernel) Put(ctx context.Context, rec *state.Endpoint) (whole bool, err error) {
	if !ByKernel(rec) {
		return true, nil
	}
	whole, err = k.Answers.Put(ctx, MemberOf(rec), nil)
	return whole, unsupported(err)
}

// Whole says that no names were lost with all that the kernel had of them.
func (k *Kernel) Whole() (bool, error) { return k.Answers.Whole() }

// MarkWhole says that the names of all attachments are there again.
func (k *Kernel) MarkWhole(ctx context.Context) error { return k.Answers.MarkWhole(ctx) }

// Rename is Put for an attachment that had other names.
func (k *Kernel) Rename(ctx context.Context, before, now *state.Endpoint) error {
	switch {
	case ByKernel(before) && !ByKernel(now):
		return k.Remove(ctx, before)
	case ByKernel(before):
		_, err := k.Answers.Put(ctx, MemberOf(now), MemberOf(before))
		return unsupported(err)
	}
	_, err := k.Put(ctx, now)
	return err
}

// unsupported names the key that the kernel cannot do.
func unsupported(err error) error {
	if !responder.Unsupported(err) && !errors.Is(err, netlink.ErrUnsupported) {
		return err
	}
	return &model.UnsupportedError{Key: "names.responder", Value: `"bpf"`, Err: err}
}

// Remove has the kernel forget an attachment; missing is success. It is for before the link and
// the addresses go.
func (k *Kernel) Remove(ctx context.Context, rec *state.Endpoint) error {
	if rec.Boot != "" && !ByKernel(rec) { // else nothing tells
		return nil
	}
	return k.Answers.Remove(ctx, MemberOf(rec), rec.Phase == state.PhaseReady)
}

// Forget has the kernel forget the host's names on a network whose last attachment has gone.
func (k *Kernel) Forget(ctx context.Context, rec *state.Endpoint) error {
	if !ByKernel(rec) {
		return nil
	}
	empty := func() (bool, error) {
		has, err := k.Records.HasEndpoint(rec.Network, *rec)
		return !has, err
	}
	if is, err := empty(); !is || err != nil { // as is the case mostly, and costs less
		return err
	}
	return k.Answers.RemoveHost(ctx, MemberOf(rec), empty)
}

// Verify says what differs from what Put made of an attachment.
func (k *Kernel) Verify(ctx context.Context, rec *state.Endpoint) error {
	if !ByKernel(rec) {
		return nil
	}
	err := k.Answers.Verify(ctx, MemberOf(rec))
	if errors.Is(err, responder.ErrDifferent) {
		err = fmt.Errorf("%w: %w", netlink.ErrDifferent, err)
	}
	return err
}

// Mend puts back what of an attachment is missing, and says whether there was anything.
func (k *Kernel) Mend(ctx context.Context, rec *state.Endpoint) (mended bool, err error) {
	if err := k.Verify(ctx, rec); err == nil || !errors.Is(err, responder.ErrDifferent) {
		return false, err
	}
	_, err = k.Put(ctx, rec)
	if errors.Is(err, netlink.ErrNotFound) {
		return false, nil // the link is gone: that is for DEL, and CHECK tells
	}
	return err == nil, err
}

// Strays returns names that no record explains, and with remove removes them.
func (k *Kernel) Strays(ctx context.Context, remove bool) ([]string, error) {
	return k.Answers.Strays(ctx, remove, func() (known responder.Known, err error) {
		networks, err := k.Records.EndpointNetworks()
		if err != nil {
			return known, err
		}
		for _, n := range networks {
			recs, err := k.Records.Endpoints(n)
			if errors.Is(err, state.ErrCorrupt) {
				known.Unread = append(known.Unread, n) // whose names are, is not known
			} else if err != nil {
				return known, err
			}
			if len(recs) > 0 {
				known.Networks = append(known.Networks, n)
			}
			for _, rec := range recs {
				known.Owners = append(known.Owners, life.IDOf(rec).String())
			}
		}
		return known, nil
	})
}

// Tidy removes what is in the kernel for names while there are none.
func (k *Kernel) Tidy(ctx context.Context) error { return k.Answers.Tidy(ctx) }

// Available says why this kernel cannot answer; nil: it can.
func (k *Kernel) Available(ctx context.Context) error { return unsupported(k.Answers.Available(ctx)) }
