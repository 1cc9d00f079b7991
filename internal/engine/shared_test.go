package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/pkg/ipamstore/subnets"
)

// rounds is how many a test makes: LIBNET_ROUNDS, else few.
func rounds(t *testing.T, few int) int {
	t.Helper()
	text := os.Getenv("LIBNET_ROUNDS")
	if text == "" {
		return few
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("LIBNET_ROUNDS: %v", err)
	}
	return n
}

// One Controller and one Network serve 64 goroutines at once, whose threads are
// in another namespace; after all that nothing is left.
func TestControllerShared(t *testing.T) {
	t.Parallel()
	const goroutines = 64
	home := lntest.NewNetns(t)
	h := newHostAt(t, home)
	n, err := h.DefineNetwork("bridge", "net1", WithSubnet(netip.MustParsePrefix("10.73.0.0/16")), WithConfig(model.NetworkConfig{
		Bridge: "brs", Gateway: true, DefaultGateway: true, Masquerade: true, GatewayModeIPv4: model.GatewayNAT, AutoMTU: true,
	}))
	if err != nil {
		t.Fatal(err)
	}
	before := tracesAt(t, home)
	var wg sync.WaitGroup
	for i := range goroutines {
		wg.Go(func() {
			for round := range rounds(t, 2) {
				if err := shareOnce(t.Context(), h.Controller, n, i, round); err != nil {
					t.Errorf("goroutine %d, round %d: %v", i, round, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := n.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := tracesAt(t, home); after[:len("links lo, 0")] != before[:len("links lo, 0")] {
		t.Errorf("after all: %s; before: %s", after, before)
	}
	if left, err := os.ReadDir(h.dir + "/state/networks"); len(left) > 0 || err != nil {
		t.Errorf("records are left: %v, %v", left, err)
	}
	if err := errors.Join(checkPool(t, n)); err != nil {
		t.Error(err)
	}
}

func shareOnce(ctx context.Context, c *Controller, n *Network, i, round int) (err error) {
	sb, err := c.NewSandbox(ctx, fmt.Sprintf("c%d-%d", i, round))
	if err != nil {
		return fmt.Errorf("NewSandbox: %w", err)
	}
	defer func() { err = errors.Join(err, sb.Delete(ctx)) }()
	e, err := n.Attach(ctx, sb, WithPorts(model.PortMapping{HostPort: 10000 + i, ContainerPort: 80, Protocol: "tcp"}))
	if err != nil {
		return fmt.Errorf("Attach: %w", err)
	}
	if err := e.Verify(ctx); err != nil {
		return fmt.Errorf("Verify: %w", err)
	}
	if round%2 == 0 {
		if err := n.Remove(ctx, e.ID()); err != nil {
			return fmt.Errorf("Remove: %w", err)
		}
		return nil
	}
	if err := e.Leave(ctx); err != nil {
		return fmt.Errorf("Leave: %w", err)
	}
	return e.Delete(ctx)
}

// checkPool says which leases are left.
func checkPool(t *testing.T, n *Network) error {
	t.Helper()
	uses, err := n.ipam.(*address.Pool).Usage(t.Context())
	for _, u := range uses {
		if u.Held != 0 {
			err = errors.Join(err, fmt.Errorf("%d leases are left", u.Held))
		}
	}
	return err
}

// A call learns MTU and subnets of a Network without changing another call's:
// the record that the first one writes is the second one's, too.
func TestNetworkDoesNotChange(t *testing.T) {
	t.Parallel()
	w := newWorld()
	c := w.controller()
	n, err := c.DefineNetwork("bridge", "net1", WithConfig(model.NetworkConfig{Bridge: "br0", Gateway: true, AutoMTU: true}))
	if err != nil {
		t.Fatal(err)
	}
	before := n.fingerprint()
	for _, id := range []string{"c1", "c2"} {
		e, err := n.Attach(t.Context(), &Sandbox{c: c, id: id, path: "/proc/self/ns/net"})
		if err != nil {
			t.Fatal(err)
		}
		if e.n.def.Config.MTU == 0 {
			t.Error("the MTU was not found out")
		}
		if got := n.fingerprint(); got != before || w.networks["net1"].Fingerprint != before {
			t.Errorf("after %s: fingerprint %s, recorded %s, was %s", id, got, w.networks["net1"].Fingerprint, before)
		}
	}
}

// A DEL or GC beside an Endpoint's own calls leaves nothing for them to bring
// back.
func TestEndpointRemovedBeside(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		call func(context.Context, *Endpoint, *Sandbox) error
		want error
	}{
		{"Join", func(ctx context.Context, e *Endpoint, sb *Sandbox) error { return e.Join(ctx, sb) }, model.ErrNotFound},
		{"Leave", func(ctx context.Context, e *Endpoint, _ *Sandbox) error { return e.Leave(ctx) }, nil},
		{"Delete", func(ctx context.Context, e *Endpoint, _ *Sandbox) error { return e.Delete(ctx) }, nil},
	} {
		w := newWorld()
		c := w.controller()
		n, err := c.DefineNetwork("bridge", "net1", WithConfig(model.NetworkConfig{Bridge: "br0", Gateway: true, Masquerade: true}))
		if err != nil {
			t.Fatal(err)
		}
		sb := &Sandbox{c: c, id: "c1", path: "/proc/self/ns/net"}
		e, err := n.CreateEndpoint(t.Context(), "c1")
		if err != nil {
			t.Fatal(err)
		}
		if tt.name == "Leave" {
			if err := e.Join(t.Context(), sb); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.Remove(t.Context(), e.ID()); err != nil {
			t.Fatal(err)
		}
		before := w.snapshot()
		if err := tt.call(t.Context(), e, sb); !errors.Is(err, tt.want) {
			t.Errorf("%s after Remove: got %v, want %v", tt.name, err, tt.want)
		}
		if diff := cmp.Diff(before, w.snapshot()); diff != "" {
			t.Errorf("%s after Remove brought back (-before +after):\n%s", tt.name, diff)
		}
	}
}

// Goroutines that attach to a Network whose subnet is yet to be chosen agree.
func TestAutoSubnetShared(t *testing.T) {
	t.Parallel()
	home := lntest.NewNetns(t)
	h := newHostAt(t, home)
	n, err := h.DefineNetwork("bridge", "net1", WithAutoSubnet(subnets.Request{}), WithConfig(model.NetworkConfig{Bridge: "brs", Gateway: true, AutoMTU: true}))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := shareOnce(t.Context(), h.Controller, n, i, 1); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// An ADD that finds no lease at all, beside the DEL of the last container, which
// has given its lease back and has its record yet, does not make that lease anew.
func TestNoLeaseOfOneThatGoes(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	n := h.network("10.74.0.0/24")
	ctx := t.Context()
	sb1, sb2 := h.sandbox("c1"), h.sandbox("c2")
	e, err := n.Attach(ctx, sb1)
	if err != nil {
		t.Fatal(err)
	}
	id := e.ID()
	release, err := h.endpoints.Own(ctx, id.Network, id.ContainerID, id.IfName, state.OnlyExisting)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(h.Controller.links.Detach(ctx, e.ref()), n.ipam.Remove(ctx, id))
	// Without its index the pool does not know that it is empty by right, as while
	// another call is at work.
	if err = errors.Join(err, os.RemoveAll(filepath.Join(h.dataDir, ".libnet"))); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := n.Attach(ctx, sb2)
		done <- err
	}()
	select { // DEL goes on once ADD waits for it, or has not
	case err = <-done:
		done <- err
	case <-time.After(200 * time.Millisecond):
	}
	if err := h.endpoints.DeleteEndpoint(id.Network, id.ContainerID, id.IfName); err != nil {
		t.Fatal(err)
	}
	release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	uses, err := n.ipam.(*address.Pool).Usage(ctx)
	if err != nil || len(uses) != 1 || uses[0].Held != 1 {
		t.Errorf("leases %+v, %v; want c2's alone", uses, err)
	}
	if err := n.Remove(ctx, model.ID{Network: "net1", ContainerID: "c2", IfName: "eth0"}); err != nil {
		t.Error(err)
	}
}
