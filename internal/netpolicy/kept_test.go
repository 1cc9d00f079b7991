package netpolicy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// Whatever changes, what is compiled by what is known of earlier compilations is what a Compiler makes
// that has just been told all: only the numbers of classes and profiles are others.
func TestKept(t *testing.T) {
	for seed := range uint64(60) {
		w := newWorld(rand.New(rand.NewPCG(seed, 2)))
		w.wild = true
		for step := range 120 {
			for range w.IntN(4) {
				w.change()
			}
			if w.IntN(10) == 0 && len(w.o.pods) > 0 {
				w.c.DeletePod(w.o.pods[0].Key)
				w.o.pods = w.o.pods[1:]
			}
			if w.IntN(20) == 0 {
				for k := range w.o.policies {
					w.c.DeletePolicy(k)
				}
				clear(w.o.policies)
			}
			got, want := w.c.Compile().plain(), w.anew().Compile().plain()
			for k := range want {
				if !slices.Equal(got[k], want[k]) || len(got) != len(want) {
					t.Errorf("seed %d step %d: %s: %v, want %v", seed, step, k, got[k], want[k])
				}
			}
			if t.Failed() {
				return
			}
		}
	}
}

// anew has been told all that holds now.
func (w *world) anew() *Compiler {
	c := New()
	for name, labels := range w.o.spaces {
		c.SetNamespace(name, labels)
	}
	for _, p := range w.o.pods {
		c.SetPod(p)
	}
	for _, p := range w.o.policies {
		if err := c.SetPolicy(p); err != nil {
			panic(err)
		}
	}
	return c
}

// plain says by addresses what the rules say by classes.
func (r *Rules) plain() map[string][]string {
	names := map[Class][]string{0: {"every"}, AnyPod: {"pods"}}
	targets := map[Class][]string{}
	for side, isolated := range []map[netip.Addr]Class{r.In, r.Out} {
		for a, c := range isolated {
			targets[c] = append(targets[c], fmt.Sprint(side, " ", a))
		}
	}
	for a, c := range r.Peers.All() {
		names[c] = append(names[c], a.String())
	}
	for _, s := range r.Ranges {
		names[s.Class] = append(names[s.Class], fmt.Sprint(s.From, "-", s.To))
	}
	for _, all := range []map[Class][]string{names, targets} {
		for _, of := range all {
			slices.Sort(of)
		}
	}
	all := map[string][]string{}
	for pair, p := range r.Allowed {
		may := fmt.Sprint(r.Ports[p])
		if p == AllPorts {
			may = "all"
		}
		key := fmt.Sprint(targets[pair.Target], " and ", names[pair.Peer]) // of no peer, if others have its addresses
		all[key] = append(all[key], may)
		slices.Sort(all[key])
	}
	for _, of := range names {
		all["peers "+fmt.Sprint(of)] = nil
	}
	for _, of := range targets {
		all["isolated "+fmt.Sprint(of)] = nil
	}
	all["of all pods"] = []string{fmt.Sprint(len(r.Ports))}
	for _, a := range slices.SortedFunc(maps.Keys(maps.Collect(r.Pods.All())), netip.Addr.Compare) {
		all["of all pods"] = append(all["of all pods"], a.String())
	}
	return all
}
