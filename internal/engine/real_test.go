package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/publish"
	"github.com/libnet-cni/libnet/internal/state"
)

// realHost is a Controller in a network namespace of the test's own.
type realHost struct {
	*Controller
	t        *testing.T
	dir      string
	dataDir  string
	netnsDir string
}

func newHost(t *testing.T) *realHost {
	t.Helper()
	lntest.Isolate(t)
	dir := t.TempDir()
	h := &realHost{t: t, dir: dir, dataDir: filepath.Join(dir, "leases"), netnsDir: filepath.Join(dir, "netns")}
	c, err := New(WithStateDir(filepath.Join(dir, "state")), WithDataDir(h.dataDir), WithNetnsDir(h.netnsDir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	h.Controller = c
	return h
}

func (h *realHost) network(subnet string, opts ...NetworkOption) *Network {
	h.t.Helper()
	n, err := h.NewNetwork(context.Background(), "bridge", "net1", append(opts, WithSubnet(netip.MustParsePrefix(subnet)))...)
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

func (h *realHost) sandbox(id string) *Sandbox {
	h.t.Helper()
	sb, err := h.NewSandbox(context.Background(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := sb.Delete(context.Background()); err != nil {
			h.t.Error(err)
		}
	})
	return sb
}

// links lists the links of the host, without the indexes that change.
func (h *realHost) links() []string {
	h.t.Helper()
	all, err := netlink.LinkList()
	if err != nil {
		h.t.Fatal(err)
	}
	var out []string
	for _, l := range all {
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			h.t.Fatal(err)
		}
		out = append(out, fmt.Sprint(l.Attrs().Name, " ", l.Type(), " ", addrs))
	}
	return out
}

// files lists the leases and records there are.
func (h *realHost) files() []string {
	h.t.Helper()
	var out []string
	err := filepath.WalkDir(h.dir, func(path string, d os.DirEntry, err error) error {
		name := d.Name()
		if strings.HasSuffix(name, ".json") || strings.Count(name, ".") == 3 {
			out = append(out, strings.TrimPrefix(path, h.dir))
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// nothingLeft says that there are no leases, and no records but those of sandboxes.
func (h *realHost) nothingLeft() {
	h.t.Helper()
	for _, f := range h.files() {
		if !strings.Contains(f, "sandboxes") {
			h.t.Errorf("left: %s", f)
		}
	}
}

// publication has the ports of p published for an endpoint, as portmap-ln does.
func (h *realHost) publication(e *Endpoint, hostPort int) (*Publisher, publish.Publication) {
	h.t.Helper()
	p, err := h.Publisher("net1", model.PublishConfig{})
	if err != nil {
		h.t.Fatal(err)
	}
	pub := publish.Publication{ID: e.ID(), Netns: e.Netns(), Addrs: e.Addressing().Addrs(), Ports: []model.PortMapping{{HostPort: hostPort, ContainerPort: 80}}}
	if _, err := p.Publish(context.Background(), pub); err != nil {
		h.t.Fatal(err)
	}
	return p, pub
}

func TestSentinels(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	before := h.links()
	for name, tt := range map[string]struct {
		driver, network string
		opts            []NetworkOption
		want            error
	}{
		"unknown driver": {"macvlan", "net1", nil, model.ErrUnknownDriver},
		"blank name":     {"bridge", "", nil, model.ErrInvalidName},
		"path in name":   {"bridge", "../net1", nil, model.ErrInvalidName},
	} {
		if _, err := h.NewNetwork(ctx, tt.driver, tt.network, tt.opts...); !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", name, err, tt.want)
		}
	}
	if _, err := h.NewNetwork(ctx, "bridge", "net1", WithConfig(model.NetworkConfig{MTU: 5})); err == nil {
		t.Error("MTU 5 was accepted")
	}
	if _, err := h.Network("net1"); !errors.Is(err, model.ErrNotFound) {
		t.Errorf("missing network: error %v, want ErrNotFound", err)
	}
	if diff := cmp.Diff(before, h.links()); diff != "" {
		t.Errorf("refused networks changed the host (-before +after):\n%s", diff)
	}

	n := h.network("10.43.0.0/24")
	if _, err := h.NewNetwork(ctx, "bridge", "net1"); !errors.Is(err, model.ErrNetworkExists) {
		t.Errorf("again: error %v, want ErrNetworkExists", err)
	}
	e, err := n.CreateEndpoint(ctx, "ep1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.CreateEndpoint(ctx, "ep1"); !errors.Is(err, model.ErrEndpointExists) {
		t.Errorf("endpoint again: error %v, want ErrEndpointExists", err)
	}
	if _, err := n.CreateEndpoint(ctx, ""); !errors.Is(err, model.ErrInvalidName) {
		t.Errorf("blank endpoint: error %v, want ErrInvalidName", err)
	}
	if err := n.Delete(ctx); !errors.Is(err, model.ErrNetworkInUse) {
		t.Errorf("delete in use: error %v, want ErrNetworkInUse", err)
	}
	if err := e.Leave(ctx); !errors.Is(err, model.ErrNotJoined) {
		t.Errorf("leave before join: error %v, want ErrNotJoined", err)
	}
	sb := h.sandbox("c1")
	if _, err := h.NewSandbox(ctx, "c1"); !errors.Is(err, model.ErrSandboxExists) {
		t.Errorf("sandbox again: error %v, want ErrSandboxExists", err)
	}
	if err := e.Join(ctx, sb); err != nil {
		t.Fatal(err)
	}
	if err := e.Join(ctx, sb); !errors.Is(err, model.ErrEndpointJoined) {
		t.Errorf("join again: error %v, want ErrEndpointJoined", err)
	}
	if err := e.Delete(ctx); !errors.Is(err, model.ErrEndpointJoined) {
		t.Errorf("delete while joined: error %v, want ErrEndpointJoined", err)
	}
	if _, err := h.NewSandbox(ctx, "own", WithNetnsPath("/proc/thread-self/ns/net")); !errors.Is(err, model.ErrOwnNamespace) {
		t.Errorf("the host's namespace: error %v, want ErrOwnNamespace", err)
	}
	if _, err := h.NewSandbox(ctx, "none", WithNetnsPath("/etc/passwd")); !errors.Is(err, model.ErrBadNetns) {
		t.Errorf("a file: error %v, want ErrBadNetns", err)
	}
	if err := errors.Join(e.Leave(ctx), e.Delete(ctx), n.Delete(ctx)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, h.links()); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}

// A second process finds, uses and removes the network that the first one made.
func TestFoundAgainByName(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	e, err := h.network("10.44.0.0/24", WithMasquerade()).CreateEndpoint(ctx, "ep1", WithIfName("net0"))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Join(ctx, h.sandbox("c1")); err != nil {
		t.Fatal(err)
	}

	n, err := h.Network("net1")
	if err != nil {
		t.Fatal(err)
	}
	again, err := n.Endpoint("ep1", "net0")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(e.Interfaces(), again.Interfaces()); diff != "" {
		t.Errorf("interfaces (-made +found):\n%s", diff)
	}
	if err := again.Verify(ctx); err != nil {
		t.Error(err)
	}
	other, err := n.CreateEndpoint(ctx, "ep2")
	if err != nil {
		t.Fatal(err)
	}
	if got := other.Addressing().Addresses[0].Prefix.String(); got != "10.44.0.3/24" {
		t.Errorf("second address %s, want 10.44.0.3/24", got)
	}
	if err := errors.Join(again.Leave(ctx), again.Delete(ctx), other.Delete(ctx), n.Delete(ctx)); err != nil {
		t.Fatal(err)
	}
	if left := h.files(); len(left) != 1 || !strings.Contains(left[0], "sandboxes") {
		t.Errorf("left: %v, want the sandbox alone", left)
	}
}

// Attach twice is once; a manual change or another sandbox makes it anew.
func TestAttachIsIdempotent(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	n := h.network("10.45.0.0/24")
	sb := h.sandbox("c1")
	first, err := n.Attach(ctx, sb)
	if err != nil {
		t.Fatal(err)
	}
	second, err := n.Attach(ctx, sb)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first.Interfaces(), second.Interfaces()); diff != "" {
		t.Errorf("the second Attach made something (-first +second):\n%s", diff)
	}
	link, err := netlink.LinkByName(first.ID().HostName())
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	if err := first.Verify(ctx); !errors.Is(err, model.ErrDifferent) || !strings.Contains(err.Error(), first.ID().HostName()) {
		t.Errorf("without its link: error %v, want ErrDifferent that names it", err)
	}
	third, err := n.Attach(ctx, sb)
	if err != nil {
		t.Fatal(err)
	}
	if err := third.Verify(ctx); err != nil {
		t.Error(err)
	}
	if err := n.Remove(ctx, third.ID()); err != nil {
		t.Fatal(err)
	}
}

// Collect without a list takes what is provably dead and nothing else; with an
// empty one it takes all, and the network with it.
func TestCollect(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	before := h.links()
	n := h.network("10.46.0.0/24", WithMasquerade())
	dead, living := h.sandbox("dead"), h.sandbox("living")
	for _, sb := range []*Sandbox{dead, living} {
		if _, err := n.Attach(ctx, sb); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Unmount(dead.Path(), unix.MNT_DETACH); err != nil { // its container dies
		t.Fatal(err)
	}
	has := func(want ...string) {
		t.Helper()
		endpoints, err := n.Endpoints(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range endpoints {
			got = append(got, e.Name())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("endpoints (-want +got):\n%s", diff)
		}
	}
	has("dead", "living")
	if err := n.Collect(ctx, func(holder life.Holder) bool { return !h.Dead(holder) }, KeepNetwork); err != nil {
		t.Fatal(err)
	}
	has("living")
	if err := n.Collect(ctx, func(life.Holder) bool { return false }, DissolveNetwork); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, h.links()); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
	h.nothingLeft()
}

// A container that comes again under its name after Collect has found it dead
// keeps what its ADD made, its address above all.
func TestCollectSparesAContainerThatCameAgain(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	n := h.network("10.48.0.0/24", WithMasquerade())
	dead := h.sandbox("c1")
	if _, err := n.Attach(ctx, dead); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(dead.Path(), unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	again, err := h.NewSandbox(ctx, "c1", WithNetnsPath(lntest.NewNetns(t)))
	if err != nil {
		t.Fatal(err)
	}
	var e *Endpoint
	err = n.Collect(ctx, func(holder life.Holder) bool {
		keep := !h.Dead(holder)
		if e == nil { // between the look and the removal
			if keep {
				t.Errorf("%+v is not dead", holder)
			}
			if e, err = n.Attach(ctx, again); err != nil {
				t.Error(err)
			}
		}
		return keep
	}, KeepNetwork)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Verify(ctx); err != nil {
		t.Error(err)
	}
}

func TestRemoveNeedsOnlyTheID(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	n := h.network("10.47.0.0/24", WithMasquerade())
	sb := h.sandbox("c1")
	e, err := n.Attach(ctx, sb)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(h.dir, "state", "networks")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := n.Remove(ctx, e.ID()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := netlink.LinkByName(e.ID().HostName()); err == nil {
		t.Error("the link is left")
	}
	if err := n.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	if left := h.files(); len(left) != 1 {
		t.Errorf("left: %v, want the sandbox alone", left)
	}
}

func (h *realHost) attach(n *Network, id string, opts ...EndpointOption) *Endpoint {
	h.t.Helper()
	e, err := n.Attach(context.Background(), h.sandbox(id), opts...)
	if err != nil {
		h.t.Fatal(err)
	}
	return e
}

// records are those of all attachments and publications, by container.
func (h *realHost) records() map[string]state.Endpoint {
	h.t.Helper()
	all := map[string]state.Endpoint{}
	for kind, dir := range map[string]endpointRecords{"": h.endpoints, "ports of ": h.publications()} {
		networks, err := dir.EndpointNetworks()
		if err != nil {
			h.t.Fatal(err)
		}
		for _, n := range networks {
			recs, err := dir.Endpoints(n)
			if err != nil {
				h.t.Fatal(err)
			}
			for _, rec := range recs {
				all[kind+rec.ContainerID] = rec
			}
		}
	}
	return all
}
