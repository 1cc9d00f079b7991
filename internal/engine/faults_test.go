package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/model"
)

// define returns a network of the driver and a sandbox to attach, both of w.
func define(t *testing.T, w *world, driver string, config model.NetworkConfig) (*Network, *Sandbox) {
	t.Helper()
	c := w.controller()
	config.Bridge, config.GatewayModeIPv4 = "br1", model.GatewayNAT
	n, err := c.DefineNetwork(driver, "net1", WithIPAM(fakeIPAM{w: w}), WithConfig(config))
	if err != nil {
		t.Fatal(err)
	}
	return n, &Sandbox{c: c, id: "c1", path: "/proc/self/ns/net"}
}

// faultNetwork uses every part: bridge, rules, addresses, forwarding.
func faultNetwork(t *testing.T, w *world) (*Network, *Sandbox) {
	t.Helper()
	return define(t, w, "bridge", model.NetworkConfig{Gateway: true})
}

// failAtEveryStep has each step of Attach fail, before its work and after it: nothing is
// left, and the next Attach succeeds.
func failAtEveryStep(t *testing.T, network func(*testing.T, *world) (*Network, *Sandbox), opts ...EndpointOption) {
	t.Helper()
	ctx := context.Background()
	for _, after := range []bool{false, true} {
		failed := 0
		for step := 1; ; step++ {
			w := newWorld()
			n, sb := network(t, w)
			w.failAt, w.after = step, after
			_, err := n.Attach(ctx, sb, opts...)
			if err == nil {
				break // all steps have had their turn
			}
			failed++
			if !errors.Is(err, errInjected) {
				t.Fatalf("step %d: error %v, want the injected one", step, err)
			}
			w.failAt = 0
			if diff := cmp.Diff([]string(nil), w.snapshot()); diff != "" {
				t.Errorf("step %d (after its work: %v) left (-want +got):\n%s", step, after, diff)
			}
			if _, err := n.Attach(ctx, sb, opts...); err != nil {
				t.Errorf("step %d: the next Attach: %v", step, err)
			}
		}
		if failed < 8 {
			t.Errorf("only %d steps failed: the test does not reach them all", failed)
		}
	}
}

func TestAttachFailsAtEveryStep(t *testing.T) {
	failAtEveryStep(t, faultNetwork, WithPorts(model.PortMapping{ContainerPort: 80}), named(model.RespondBPF))
}

// Whichever step of Attach the process dies at, the next Attach of the same
// container succeeds, and one Remove takes everything away.
func TestAttachDiesAtEveryStep(t *testing.T) {
	ctx := context.Background()
	steps := countSteps(t)
	for step := 1; step <= steps; step++ {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("step %d after %v", step, after), func(t *testing.T) {
				w := newWorld()
				dieAt(t, w, step, after)
				n, sb := faultNetwork(t, w)
				if step%2 == 0 { // every other time a retry comes before DEL
					if _, err := n.Attach(ctx, sb, WithPorts(model.PortMapping{ContainerPort: 80}), named(model.RespondBPF)); err != nil {
						t.Fatalf("the next Attach: %v", err)
					}
				}
				if err := n.Remove(ctx, model.ID{Network: "net1", ContainerID: "c1", IfName: "eth0"}); err != nil {
					t.Fatalf("Remove: %v", err)
				}
				if err := n.Delete(ctx); err != nil {
					t.Fatalf("Delete: %v", err)
				}
				if diff := cmp.Diff([]string(nil), w.snapshot()); diff != "" {
					t.Errorf("left (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func countSteps(t *testing.T) int {
	t.Helper()
	w := newWorld()
	n, sb := faultNetwork(t, w)
	if _, err := n.Attach(context.Background(), sb, named(model.RespondBPF)); err != nil {
		t.Fatal(err)
	}
	return w.steps
}

// dieAt runs Attach and ends it for good at a step: no undo runs, as a panic
// leaves the error that rollback looks at unset.
func dieAt(t *testing.T, w *world, step int, after bool) {
	t.Helper()
	n, sb := faultNetwork(t, w)
	w.failAt, w.after, w.dies = step, after, true
	defer func() {
		if r := recover(); r != any(errInjected) {
			t.Fatalf("step %d: %v, want the process to die", step, r)
		}
		w.failAt, w.locks = 0, locks{} // the kernel frees those of the dead
	}()
	_, _ = n.Attach(context.Background(), sb, named(model.RespondBPF))
}

// Whichever step of Remove fails, the rest is removed all the same but for the
// addresses of a link that stays, and a second Remove finishes.
func TestRemoveFailsAtEveryStep(t *testing.T) {
	ctx := context.Background()
	id := model.ID{Network: "net1", ContainerID: "c1", IfName: "eth0"}
	for step := 1; ; step++ {
		w := newWorld()
		n, sb := faultNetwork(t, w)
		if _, err := n.Attach(ctx, sb, WithPorts(model.PortMapping{ContainerPort: 80}), named(model.RespondBPF)); err != nil {
			t.Fatal(err)
		}
		w.failAt = w.steps + step
		err := n.Remove(ctx, id)
		if err == nil {
			if step < 4 {
				t.Errorf("only %d steps failed: the test does not reach them all", step-1)
			}
			return
		}
		_, link := w.things["link "+id.HostName()]
		_, lease := w.things["lease "+id.String()]
		if link && !lease {
			t.Errorf("step %d: the address was given back under a living link", step)
		}
		if err := n.Remove(ctx, id); err != nil {
			t.Fatalf("step %d: second Remove: %v", step, err)
		}
		guard := n.Plan().GuardID() // stays as long as the bridge
		if diff := cmp.Diff([]string{"bridge br1", "guard br1 " + guard, "index br1 net1:" + guard, "network net1"}, w.snapshot()); diff != "" {
			t.Errorf("step %d left (-want +got):\n%s", step, diff)
		}
	}
}
