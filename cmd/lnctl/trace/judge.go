package trace

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nftrace"
)

// judge says in a sentence what became of the packet.
func (f *Found) judge(w *way) {
	shown := 0
	for _, p := range w.places() {
		last := nftrace.Step{}
		for _, s := range p.steps {
			s.In, s.Out = cmp.Or(s.In, last.In), cmp.Or(s.Out, last.Out) // only the first step of a chain has them
			if s.Dropped() {
				f.Says = w.dropped(s, f.Steps[shown], p)
				return
			}
			if last = s; !s.Own() {
				shown++
			}
		}
	}
	host, came := w.host.last()
	switch {
	case w.answer.came && errors.Is(w.answer.err, unix.ECONNREFUSED):
		f.Says, f.Arrived = w.refused()
	case w.answer.came:
		f.Arrived, f.Says = true, "arrived: "+w.answer.text
	case w.ns == nil && !came:
		f.Says = fmt.Sprintf("no packet from %s to %s came in %s: it is lost before this host, or was not sent", w.source, f.To, w.wait)
	default:
		if f.Says, f.Arrived = w.end(); f.Says != "" {
			return
		}
		switch {
		case !came && w.from != w.host && w.from != nil && len(w.from.steps) > 0:
			f.Says = "it left container " + w.from.container + ", no rule of this host saw it, and no answer came; lnctl doctor looks at links and routes"
		case !came:
			f.Says = "no rule of this host saw the packet, and no answer came; lnctl doctor looks at links and routes"
		case host.Hook == "prerouting":
			f.Says = "the kernel let it go no further after prerouting, for no reason that is known here; lnctl doctor looks at forwarding, routes and rp_filter"
		case w.ns == nil:
			f.Arrived, f.Says = true, "no rule dropped it, the last hook is "+host.Hook+through(host.Out)
		default:
			f.Says = fmt.Sprintf("no rule dropped it, the last hook is %s%s, and no answer came (%s): look at the destination, and at the way back", host.Hook, through(host.Out), w.answer.text)
		}
	}
}

func through(out string) string {
	if out == "" {
		return ""
	}
	return ", out by " + out
}

// dropped says by what, and what to do.
func (w *way) dropped(s nftrace.Step, shown Step, p *place) string {
	by := "by the policy of"
	if s.Handle != 0 {
		by = "by the rule " + shown.Rule + " of"
		if s.Comment != "" {
			by = fmt.Sprintf("by the rule %q of", s.Comment)
		}
	}
	says := fmt.Sprintf("dropped at %s%s %s chain %s, table %s", s.Hook, p.inside(), by, s.Chain, shown.Table)
	switch {
	case p.container != "":
		return says + ": it is the container's own; change it in there"
	case s.Table == "libnet-policy":
		return says + ": " + policyOf(s, w.dest.Addr())
	case s.Table == "libnet":
		if why := w.bridges.why(s); why != "" {
			return says + ": " + why
		}
	}
	if s.Table == "libnet" || strings.HasPrefix(s.Table, "libnet-") {
		return says + ": the network's configuration asks for it (gatewayMode, internal, icc, sourceRanges); lnctl network inspect shows it"
	}
	says += ": it is not libnet's; change it there"
	if s.Hook == "forward" {
		says += ", lnctl doctor says how"
	} else if s.Handle != 0 {
		says += fmt.Sprintf(" (nft delete rule %s %s handle %d)", shown.Table, s.Chain, s.Handle)
	}
	return says
}

// policyOf says which kind of rule of NetworkPolicies drops a packet, and what would let it in.
func policyOf(s nftrace.Step, to netip.Addr) string {
	switch {
	case strings.HasPrefix(s.Chain, "ingress"):
		return "a NetworkPolicy selects the pod it is for, and none lets it in: kubectl get networkpolicy in the namespace of that pod; one needs an ingress rule for this source and port"
	case strings.HasPrefix(s.Chain, "egress"):
		return "a NetworkPolicy selects the pod that sends, and none lets it out: kubectl get networkpolicy in the namespace of that pod; one needs an egress rule for this destination and port"
	case s.Family == "bridge":
		return fmt.Sprintf("ln-agent knows no pod behind %s: it has just begun, or is being removed; kubectl get pod, and the log of ln-agent", cmp.Or(map[string]string{"prerouting": s.In}[s.Hook], s.Out, "it"))
	case strings.HasPrefix(s.Chain, "home"):
		return fmt.Sprintf("no pod of this host is known at %s: it has just begun, or is gone; kubectl get pod, and the log of ln-agent", to)
	}
	return "a NetworkPolicy selects one of the pods, and the connection is not known to have been let in: begin it anew"
}

// refused says why a connection was refused, and whether the packet had arrived.
func (w *way) refused() (says string, arrived bool) {
	if r, q, is := w.published(); is && w.host.passed("inet", "input") && (w.to == nil || w.to == w.from || len(w.to.steps) == 0) {
		at, _ := w.host.last()
		if at.To.Addr() == w.dest.Addr() { // no container was chosen
			port := fmt.Sprintf("port %d/%s is published for container %s of network %q", w.dest.Port(), w.protocol, r.ContainerID, r.Network)
			switch {
			case q.HostIP.IsValid() && !q.HostIP.IsUnspecified() && q.HostIP != w.dest.Addr():
				return fmt.Sprintf("refused: %s on %s only, and this asks %s: use that address, or publish it without hostIP", port, q.HostIP, w.dest.Addr()), false
			case len(q.Sources) > 0 && !slices.ContainsFunc(q.Sources, prefixOf(at.From.Addr())):
				return fmt.Sprintf("refused: %s for clients of %s only, and %s is none: add it to sourceRanges of the port", port, list(q.Sources), at.From.Addr()), false
			}
		}
	}
	p, last := w.furthest()
	if p != nil && !p.whole(last) { // what refuses it sent it back
		if says, _ := w.end(); says != "" {
			return says, false
		}
	}
	where := "there"
	if p != nil && p == w.to && last.To.Port() != 0 {
		where = fmt.Sprintf("on port %d of container %s", last.To.Port(), w.to.container)
	}
	return "arrived: the port is closed: nothing listens " + where, true
}
