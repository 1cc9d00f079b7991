package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/either"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/publish"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// The parts of a Controller whose look at an attachment ends as told.
type (
	tellingBridges struct {
		bridges
		err error
	}
	tellingLinks struct {
		links
		err error
	}
	tellingRules struct {
		either.Rules
		err error
	}
	tellingRecords struct {
		endpointRecords
		err error
	}
	tellingIPAM struct {
		address.IPAM
		err error
	}
)

func (t tellingBridges) VerifyBridge(context.Context, link.Bridge) error { return t.err }

func (t tellingLinks) Verify(context.Context, link.Link) error { return t.err }

func (t tellingRules) Verify(context.Context, firewall.Network, firewall.Endpoint) error {
	return t.err
}

func (t tellingIPAM) Verify(context.Context, model.ID, []netip.Addr) error { return t.err }

func (t tellingRecords) LoadEndpoint(string, string, string) (state.Endpoint, error) {
	return state.Endpoint{}, t.err
}

// tell makes one part of a network's world answer so.
var tell = map[string]func(*Network, error){
	"bridge": func(n *Network, err error) { n.c.bridges = tellingBridges{n.c.bridges, err}; n.c.renewPorts() },
	"link":   func(n *Network, err error) { n.c.links = tellingLinks{n.c.links, err}; n.c.renewPorts() },
	"firewall": func(n *Network, err error) {
		n.c.rules.NFTables = tellingRules{n.c.rules.NFTables, err}
		n.c.renewPorts()
	},
	"ipam": func(n *Network, err error) { n.ipam = tellingIPAM{n.ipam, err} },
}

func attached(t *testing.T) (*world, *Network, *Sandbox) {
	t.Helper()
	w := newWorld()
	n, sb := faultNetwork(t, w)
	if _, err := n.Attach(context.Background(), sb); err != nil {
		t.Fatal(err)
	}
	return w, n, sb
}

// A part that could not be looked at is no difference, and a repeated Attach
// returns that error and touches nothing.
func TestCouldNotLook(t *testing.T) {
	ctx := context.Background()
	parts := map[string]func(*Network, error){"record": func(n *Network, err error) { n.c.endpoints = tellingRecords{n.c.endpoints, err}; n.c.renewPorts() }}
	for part, fn := range tell {
		parts[part] = fn
	}
	for part, tellPart := range parts {
		for _, cause := range []error{syscall.EMFILE, syscall.ENOBUFS, syscall.EIO, context.DeadlineExceeded, ipamstore.ErrLocked, firewall.ErrUnsupported} {
			t.Run(fmt.Sprint(part, " ", cause), func(t *testing.T) {
				w, n, sb := attached(t)
				e, err := n.Endpoint("c1", "eth0")
				if err != nil {
					t.Fatal(err)
				}
				before, steps := w.snapshot(), w.steps
				tellPart(n, fmt.Errorf("look: %w", cause))
				if err := e.Verify(ctx); !errors.Is(err, cause) || errors.Is(err, model.ErrDifferent) {
					t.Errorf("Verify: %v, want %v that is no difference", err, cause)
				}
				if _, err := n.Attach(ctx, sb); !errors.Is(err, cause) {
					t.Errorf("Attach: %v, want %v", err, cause)
				}
				if diff := cmp.Diff(before, w.snapshot()); diff != "" || w.steps != steps {
					t.Errorf("Attach changed something in %d steps (-before +after):\n%s", w.steps-steps, diff)
				}
			})
		}
	}
}

// A difference is one beside what could not be looked at, too, and makes the
// attachment anew.
func TestDifferenceMakesAnew(t *testing.T) {
	ctx := context.Background()
	for part, difference := range map[string]error{
		"bridge": netlink.ErrNotFound, "link": netlink.ErrDifferent, "firewall": firewall.ErrConflict, "ipam": ipamstore.ErrMismatch,
	} {
		for _, beside := range []error{nil, syscall.EMFILE} {
			t.Run(fmt.Sprint(part, " ", beside), func(t *testing.T) {
				w, n, sb := attached(t)
				e, err := n.Endpoint("c1", "eth0")
				if err != nil {
					t.Fatal(err)
				}
				steps := w.steps
				tell[part](n, errors.Join(beside, difference))
				if err := e.Verify(ctx); !errors.Is(err, model.ErrDifferent) {
					t.Errorf("Verify: %v, want ErrDifferent", err)
				}
				if _, err := n.Attach(ctx, sb); err != nil {
					t.Fatal(err)
				}
				if made := countSteps(t); w.steps-steps <= made {
					t.Errorf("Attach took %d steps, want more than the %d of a first one", w.steps-steps, made)
				}
			})
		}
	}
}

// A record that cannot be decoded is as good as none.
func TestCorruptRecordMakesAnew(t *testing.T) {
	w, n, sb := attached(t)
	steps := w.steps
	real := n.c.endpoints
	n.c.endpoints = &corruptOnce{real, false}
	n.c.renewPorts()
	if _, err := n.Attach(context.Background(), sb); err != nil && !errors.Is(err, model.ErrEndpointExists) {
		t.Errorf("Attach: %v", err)
	}
	if w.steps == steps {
		t.Error("Attach did nothing")
	}
}

// corruptOnce sets the first record that is read aside, as state.Dir does.
type corruptOnce struct {
	endpointRecords
	done bool
}

func (c *corruptOnce) LoadEndpoint(network, id, ifName string) (state.Endpoint, error) {
	if c.done {
		return c.endpointRecords.LoadEndpoint(network, id, ifName)
	}
	c.done = true
	return state.Endpoint{}, errors.Join(state.ErrCorrupt, c.DeleteEndpoint(network, id, ifName))
}

// A repeated Publish that cannot look at the rules leaves the ports as they are.
func TestPublishCouldNotLook(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	e, err := h.network("10.49.0.0/24").Attach(ctx, h.sandbox("c1"))
	must(t, err)
	var p *Publisher
	rules := func(by either.Rules) {
		h.rules.NFTables = by
		h.renewPorts()
		p, err = h.Publisher("net2", model.PublishConfig{})
		must(t, err)
	}
	real := h.rules.NFTables
	rules(real)
	pub := publish.Publication{ID: model.ID{Network: "net2", ContainerID: "c1", IfName: "eth0"}, Netns: e.Netns(), Addrs: e.Addressing().Addrs(), Ports: []model.PortMapping{{Protocol: "tcp", HostPort: 8080, ContainerPort: 80}}}
	_, err = p.Publish(ctx, pub)
	must(t, err)
	rules(tellingRules{real, syscall.ENOBUFS})
	if _, err := p.Publish(ctx, pub); !errors.Is(err, syscall.ENOBUFS) {
		t.Errorf("Publish: %v, want ENOBUFS", err)
	}
	if err := p.Verify(ctx, pub); !errors.Is(err, syscall.ENOBUFS) || errors.Is(err, model.ErrDifferent) {
		t.Errorf("Verify: %v, want ENOBUFS that is no difference", err)
	}
	rules(real)
	must(t, p.Verify(ctx, pub))
	rules(tellingRules{real, firewall.ErrMissing})
	if _, err := p.Publish(ctx, pub); err != nil {
		t.Errorf("Publish of what differs: %v", err)
	}
	rules(real)
	must(t, p.Verify(ctx, pub))
	must(t, p.Remove(ctx, pub.ID))
}
