package trace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netns"
	"github.com/libnet-cni/libnet/internal/nftrace"
	"github.com/libnet-cni/libnet/internal/routing"
	"github.com/libnet-cni/libnet/internal/state"
)

// place is a network namespace that the packet may pass.
type place struct {
	container string // empty: it is this host's
	ns        *netns.Namespace
	attached  []state.Endpoint // of the container
	tracer    *nftrace.Tracer
	steps     []nftrace.Step
	err       error
	// dropped are the packets that queues and filters of tc had dropped before, by the index of the
	// interface.
	dropped map[int]uint32
}

// inside says where it is, behind a name of what is there.
func (p *place) inside() string {
	if p.container == "" {
		return ""
	}
	return " in container " + p.container
}

// last is what is known last of the packet there; false: it was not there.
func (p *place) last() (last nftrace.Step, came bool) {
	for _, s := range p.steps {
		s.In, s.Out, s.Hops = cmp.Or(s.In, last.In), cmp.Or(s.Out, last.Out), cmp.Or(s.Hops, last.Hops)
		if !s.From.Addr().IsValid() {
			s.From, s.To = last.From, last.To
		}
		if s.Hook != last.Hook && (s.Hook == "prerouting" || s.Hook == "output") {
			s.Out = ""
		}
		last = s
	}
	return last, len(p.steps) > 0
}

// routedLast is what postrouting of IP knows of the packet if a bridge has it after that: it goes to
// many ports if the bridge does not know which one is right.
func (p *place) routedLast(last nftrace.Step) nftrace.Step {
	if last.Family != "bridge" || last.Hook != "postrouting" {
		return last
	}
	for _, s := range slices.Backward(p.steps) {
		if s.Own() && s.Family == "inet" && s.Hook == "postrouting" {
			return s
		}
	}
	return last
}

// passed says that a chain of the trace itself has seen the packet.
func (p *place) passed(family, chain string) bool {
	return slices.ContainsFunc(p.steps, func(s nftrace.Step) bool { return s.Own() && s.Family == family && s.Chain == chain })
}

// way are the places that a packet may pass.
type way struct {
	probe
	from, to *place // nil: none is known; from may be the host
	host     *place
	answer   answer
}

// places are those of the way, in its order.
func (w *way) places() (all []*place) {
	for _, p := range []*place{w.from, w.host, w.to} {
		if p != nil && !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}

// newWay opens the places of a probe.
func newWay(p probe) (*way, error) {
	host, err := netns.Current()
	if err != nil {
		return nil, err
	}
	w := &way{probe: p, host: &place{ns: host}}
	switch {
	case p.ns == nil:
	case len(p.sender) == 0:
		w.from = w.host
	default:
		w.from = &place{container: p.sender[0].ContainerID, ns: p.ns, attached: p.sender}
	}
	target := p.target()
	switch {
	case len(target) == 0:
	case w.from != nil && target[0].ContainerID == w.from.container:
		w.to = w.from
	default:
		if ns, err := netns.Open(target[0].Netns); err == nil { // else it ended; the host's part shows that
			w.to = &place{container: target[0].ContainerID, ns: ns, attached: target}
		}
	}
	return w, nil
}

// number is IPPROTO_* of the packet.
func (p probe) number() uint8 {
	switch {
	case p.protocol == "tcp":
		return syscall.IPPROTO_TCP
	case p.protocol == "udp":
		return syscall.IPPROTO_UDP
	case p.dest.Addr().Is6():
		return syscall.IPPROTO_ICMPV6
	}
	return syscall.IPPROTO_ICMP
}

// start begins to follow the packet in all places. Where that fails but on the host, what happens
// there is not seen.
func (w *way) start(s sender) error {
	packet := nftrace.NewPacket()
	leader := w.from
	if leader == nil {
		leader = w.host
	}
	m := nftrace.Match{Source: w.source, Dest: w.dest.Addr(), Protocol: w.number(), Port: w.dest.Port(), SourcePort: s.port, Ident: s.ident}
	for _, p := range w.places() {
		m := m
		switch {
		case p == w.host && w.from != nil:
			for _, r := range w.from.attached {
				if _, err := deviceIn(w.host, r.HostName); err == nil {
					m.Devices = append(m.Devices, r.HostName)
				}
			}
		case p == w.to && p != w.from: // addresses and ports are translated by then
			m = nftrace.Match{Dest: addrOf(p.attached, w.dest.Addr()), Protocol: m.Protocol, Data: s.data, First: w.protocol == "tcp"}
			if !m.Dest.IsValid() {
				continue
			}
		}
		err := p.ns.Do(func() (err error) {
			p.dropped = routing.DroppedByQueues()
			p.tracer, err = w.begin(m, packet, p == leader)
			return err
		})
		if err != nil && (p == w.host || p == leader) {
			return err
		}
	}
	return nil
}

// begin starts a tracer in the calling thread's network namespace; while another trace is under way
// there, it waits for the end of that as long as for the packet.
func (w *way) begin(m nftrace.Match, packet *nftrace.Packet, leads bool) (*nftrace.Tracer, error) {
	for end := time.Now().Add(w.wait); ; <-time.After(anotherTrace) {
		t, err := nftrace.Start(m, packet, leads)
		another := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EEXIST)
		if !another || os.Geteuid() != 0 || time.Now().After(end) {
			return t, err
		}
	}
}

// anotherTrace is how soon it is looked again whether another trace has ended.
const anotherTrace = 20 * time.Millisecond

func (w *way) close() {
	for _, p := range w.places() {
		if p.tracer != nil {
			_ = p.tracer.Close()
		}
	}
}

// follow sends the packet, and follows it until an answer has come, or none in time.
func (w *way) follow(ctx context.Context, s sender) error {
	ctx, cancel := context.WithTimeout(ctx, w.wait)
	defer cancel()
	if err := nftrace.Slow(w.wait); err != nil {
		return err
	}
	places := w.places()
	done := make(chan *place, len(places))
	for _, p := range places {
		go func() {
			defer func() { done <- p }()
			if p.tracer != nil {
				p.err = p.ns.Do(func() (err error) {
					p.steps, err = p.tracer.Follow(ctx)
					return err
				})
			}
		}()
	}
	if w.ns != nil {
		w.answer = s.send(w.wait)
		cancel()
	}
	var errs []error
	for range places {
		p := <-done
		errs = append(errs, p.err)
		if p == w.host && w.ns == nil {
			cancel()
		}
	}
	return errors.Join(errs...)
}

func (p probe) trace(ctx context.Context, progress io.Writer) (Found, error) {
	found := Found{From: p.from, To: p.to, Steps: []Step{}}
	w, err := newWay(p)
	if err != nil {
		return found, err
	}
	var s sender
	if p.ns != nil {
		if s, err = p.open(); err != nil {
			return found, err
		}
		defer s.close()
	}
	defer w.close()
	if err := w.start(s); err != nil {
		return found, err
	}
	if p.ns == nil {
		_, _ = fmt.Fprintf(progress, "waiting %s for a packet from %s\n", p.wait, p.from)
	}
	if err := w.follow(ctx, s); err != nil {
		return found, err
	}
	for _, at := range w.places() {
		err := at.ns.Do(func() error {
			texts := rules{}
			for _, step := range at.steps {
				if !step.Own() {
					shown := stepOf(ctx, step, texts)
					shown.Container = at.container
					found.Steps = append(found.Steps, shown)
				}
			}
			return nil
		})
		if err != nil {
			return found, err
		}
	}
	found.Answer = w.answer.text
	found.judge(w)
	return found, nil
}
