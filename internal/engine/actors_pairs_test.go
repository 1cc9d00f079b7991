package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/policy"
	"github.com/libnet-cni/libnet/internal/state"
)

// deed is what an actor does in the world, and what may be so afterwards.
type deed struct {
	name  string
	first func(w *world) // what was there before
	do    func(w *world) error
}

// two networks share bridge br1, one closed and one internal.
func (w *world) net(name string, c model.NetworkConfig) *Network {
	addr := map[string]string{"net1": "10.1.0.2", "net2": "10.1.0.102"}[name]
	n, err := w.controller().DefineNetwork("bridge", name, WithIPAM(fakeIPAM{w: w, addr: addr}), WithConfig(c))
	if err != nil {
		panic(err)
	}
	return n
}

var (
	natConf      = model.NetworkConfig{Bridge: "br1", Gateway: true, GatewayModeIPv4: model.GatewayNAT}
	internalConf = model.NetworkConfig{Bridge: "br1", Gateway: true, Internal: true}
	openConf     = model.NetworkConfig{Bridge: "br1", Gateway: true, Masquerade: true}
	movedConf    = model.NetworkConfig{Bridge: "br2", Gateway: true, GatewayModeIPv4: model.GatewayNAT}
)

func (w *world) add(network, container string, c model.NetworkConfig) error {
	n := w.net(network, c)
	w.asked[model.ID{Network: network, ContainerID: container, IfName: "eth0"}.String()] = policy.Of(n.Plan().Rules())
	_, err := n.Attach(context.Background(), &Sandbox{c: n.c, id: container, path: "/proc/self/ns/net"}, WithPorts(model.PortMapping{HostPort: 8000 + len(container), ContainerPort: 80}))
	return err
}

func (w *world) del(network, container string, c model.NetworkConfig) error {
	return w.net(network, c).Remove(context.Background(), model.ID{Network: network, ContainerID: container, IfName: "eth0"})
}

func (w *world) gc(network string, c model.NetworkConfig, keep ...string) error {
	return w.net(network, c).Collect(context.Background(), func(h life.Holder) bool { return slices.Contains(keep, h.ID.ContainerID) }, Dissolve(len(keep) == 0))
}

func nothing(*world) {}

func there(network, container string, c model.NetworkConfig) func(*world) {
	return func(w *world) {
		if err := w.add(network, container, c); err != nil {
			panic(err)
		}
	}
}

// deeds are the calls that may come at once. Containers of two actors are not the
// same, but where a name says so.
func deeds(container string) []deed {
	return []deed{
		{"ADD nat", nothing, func(w *world) error { return w.add("net1", container, natConf) }},
		{"ADD internal, of another network on the bridge", nothing, func(w *world) error { return w.add("net2", container, internalConf) }},
		{"ADD with the mode removed from the configuration", nothing, func(w *world) error { return w.add("net1", container, openConf) }},
		{"ADD with another bridge in the configuration", nothing, func(w *world) error { return w.add("net1", container, movedConf) }},
		{"DEL nat", there("net1", container, natConf), func(w *world) error { return w.del("net1", container, natConf) }},
		{"DEL internal", there("net2", container, internalConf), func(w *world) error { return w.del("net2", container, internalConf) }},
		{"GC nat of all", there("net1", container, natConf), func(w *world) error { return w.gc("net1", natConf, "kept") }},
		{"GC nat that dissolves", nothing, func(w *world) error { return w.gc("net1", natConf) }},
		{"GC internal that dissolves", there("net2", container, internalConf), func(w *world) error { return w.gc("net2", internalConf) }},
		{"repair", nothing, func(w *world) error { _, err := w.controller().Repair(context.Background()); return err }},
		{"STATUS", nothing, func(w *world) error { return w.net("net1", natConf).Status(context.Background()) }},
		{"failed ADD", nothing, func(w *world) error {
			n := w.net("net1", natConf)
			_, err := n.Attach(context.Background(), &Sandbox{c: n.c, id: container, path: "/proc/nonexistent"})
			if !errors.Is(err, model.ErrBadNetns) {
				return fmt.Errorf("got %w, want ErrBadNetns", err)
			}
			return nil
		}},
		{"ADD and DEL of one container", nothing, func(w *world) error {
			if err := w.add("net1", "same", natConf); err != nil {
				return err
			}
			return w.del("net1", "same", natConf)
		}},
	}
}

// Whatever two actors do at once, before whichever step of the first one the second
// one comes: no endpoint is ever less closed than it was promised, what is attached
// is whole and verifies, and of what is gone nothing is left.
func TestTwoActors(t *testing.T) {
	tried := 0
	for _, a := range deeds("first") {
		for _, b := range deeds("second") {
			for at, steps := 1, 1; at <= steps; at++ {
				steps = meet(t, a, b, at)
				tried++
				if t.Failed() {
					return
				}
			}
		}
	}
	t.Logf("%d meetings", tried)
}

func meet(t *testing.T, a, b deed, at int) (steps int) {
	t.Helper()
	w := newWorld()
	a.first(w)
	b.first(w)
	living := w.living()
	var errs [2]error
	defer func() {
		if r := recover(); r != nil {
			t.Errorf("%s, and before step %d of it %s: %v", a.name, at, b.name, r)
		}
	}()
	steps, _ = w.play(at, func() { errs[0] = a.do(w) }, func() { errs[1] = b.do(w) })
	wrong := append(w.open, w.flaws(living)...)
	for _, err := range errs {
		// Two configurations that contradict each other may be told so.
		if err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	if len(wrong) > 0 {
		t.Errorf("%s, and before step %d of it %s:\n%s", a.name, at, b.name, strings.Join(wrong, "\n"))
	}
	return steps
}

// living lists the attachments that are complete.
func (w *world) living() []string {
	var all []string
	for k, rec := range w.records {
		if rec.Phase == state.PhaseReady {
			all = append(all, k)
		}
	}
	return all
}

// flaws says what is wrong with a world in which no actor is at work.
func (w *world) flaws(before []string) []string {
	var wrong []string
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	owners := map[string]bool{}
	for key, rec := range w.records {
		owner := life.IDOf(rec).String()
		owners[owner] = true
		if rec.Phase != state.PhaseReady {
			bad("record %s is %s", key, rec.Phase)
		}
		for _, kind := range []string{"link " + rec.HostName, "rules " + owner, "lease " + owner} {
			if _, has := w.things[kind]; !has {
				bad("%s: no %s", key, kind)
			}
		}
		if _, has := w.networks[rec.Network]; !has {
			bad("%s: its network has no record", key)
		}
		if _, has := w.things["bridge "+rec.Bridge]; !has {
			bad("%s: its bridge is gone", key)
		}
		n, err := w.controller().Network(rec.Network)
		if err != nil {
			bad("%s: %v", key, err)
			continue
		}
		got, err := n.c.book().Verifiable(context.Background(), n.Plan(), rec)
		if err != nil || policy.ID(policy.Of(got)) != policy.ID(w.guards[rec.Bridge]) {
			bad("%s: guard is %+v, want %+v, %v", key, w.guards[rec.Bridge], got, err)
		}
	}
	for thing := range w.things {
		kind, owner, _ := strings.Cut(thing, " ")
		if kind == "link" {
			owner = w.things[thing]
		}
		if (kind == "link" || kind == "rules" || kind == "lease") && !owners[owner] {
			bad("left: %s", thing)
		}
	}
	for bridge, g := range w.guards {
		if _, has := w.things["bridge "+bridge]; !has && policy.ID(g) != policy.ID(firewall.Network{}) {
			bad("left: the guard of %s, which is gone", bridge)
		}
	}
	_ = before
	return wrong
}
