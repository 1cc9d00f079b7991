package operator

import (
	"context"
	"slices"
	"time"

	"github.com/libnet-cni/libnet/internal/tunnel"
)

// smallEcho is the size in bytes of a packet that every way takes.
const smallEcho = 104

// ask sends echo requests to all peers: through the tunnel, small and full, and
// on the underlay. Then it looks for the largest that full ones could have been.
func (f *foundPeers) ask(ctx context.Context, wait time.Duration) error {
	var echoes, under []tunnel.Echo
	var by []string
	for _, p := range f.Peers.Peers {
		under = append(under, tunnel.Echo{To: p.Address, Size: smallEcho})
		for _, w := range p.Ways {
			echoes = append(echoes, tunnel.Echo{To: w.Via, Size: min(smallEcho, f.MTU)}, tunnel.Echo{To: w.Via, Size: f.MTU})
			by = append(by, w.device, w.device)
		}
	}
	got, err := echoAll(ctx, by, echoes, wait)
	if err != nil {
		return err
	}
	answer := func(i int) Answer { return Answer{echoes[i].Size, got[i].Sent, got[i].RTT, got[i].Err} }
	at, silent := 0, false
	for i := range f.Peers.Peers {
		for j := range f.Peers.Peers[i].Ways {
			w := &f.Peers.Peers[i].Ways[j]
			w.Answer, w.Full = answer(at), answer(at+1)
			at += 2
			silent = silent || w.Answer.RTT == 0
		}
	}
	if silent {
		got, err := tunnel.EchoAll(ctx, "", under, wait/2)
		if err != nil {
			return err
		}
		for i, g := range got {
			f.Peers.Peers[i].Underlay = Answer{under[i].Size, g.Sent, g.RTT, g.Err}
		}
	}
	return f.searchMTU(ctx, wait/2)
}

// narrow is a search for the largest packet that comes back.
type narrow struct {
	way    *PeerWay
	lo, hi int // comes back, does not
}

// parts is into how many one round of a search cuts what is left.
const parts = 24

// searchMTU sends packets of several sizes at once until the largest that comes
// back is known, or the time is up: then it is one that surely does.
func (f *foundPeers) searchMTU(ctx context.Context, wait time.Duration) error {
	var all []*narrow
	for i := range f.Peers.Peers {
		for j := range f.Peers.Peers[i].Ways {
			if w := &f.Peers.Peers[i].Ways[j]; w.Answer.RTT > 0 && w.Full.RTT == 0 {
				all = append(all, &narrow{w, smallEcho, f.MTU})
			}
		}
	}
	const rounds = 3 // 24 × 24 × 24 is more than any path MTU but that of lo
	for range rounds {
		if err := narrowAll(ctx, all, wait/rounds); err != nil {
			return err
		}
	}
	for _, n := range all {
		n.way.Largest = n.lo
	}
	return nil
}

// narrowAll is one round for all searches that are not at their end.
func narrowAll(ctx context.Context, all []*narrow, wait time.Duration) error {
	var echoes []tunnel.Echo
	var by []string
	var of []*narrow
	for _, n := range all {
		step := max(1, (n.hi-n.lo+parts-1)/parts)
		for size := n.lo + step; size < n.hi; size += step {
			echoes, of = append(echoes, tunnel.Echo{To: n.way.Via, Size: size}), append(of, n)
			by = append(by, n.way.device)
		}
	}
	if len(echoes) == 0 {
		return nil
	}
	got, err := echoAll(ctx, by, echoes, wait)
	if err != nil {
		return err
	}
	for i, g := range got {
		if g.RTT > 0 {
			of[i].lo = max(of[i].lo, echoes[i].Size)
		}
	}
	for i, g := range got { // those above the largest that came back
		if g.RTT == 0 && echoes[i].Size > of[i].lo {
			of[i].hi = min(of[i].hi, echoes[i].Size)
		}
	}
	return nil
}

// echoAll asks by several devices, of which by names one for each of echoes: while keys change a
// network has two. Each may take as long as wait.
func echoAll(ctx context.Context, by []string, echoes []tunnel.Echo, wait time.Duration) ([]tunnel.Echoed, error) {
	all := make([]tunnel.Echoed, len(echoes))
	for _, device := range slices.Compact(slices.Sorted(slices.Values(by))) {
		var mine []tunnel.Echo
		var at []int
		for i, e := range echoes {
			if by[i] == device {
				mine, at = append(mine, e), append(at, i)
			}
		}
		got, err := tunnel.EchoAll(ctx, device, mine, wait)
		if err != nil {
			return nil, err
		}
		for i, g := range got {
			all[at[i]] = g
		}
	}
	return all, nil
}
