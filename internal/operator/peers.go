package operator

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/tunnel"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

// ErrNoOverlay says that a network does not span hosts.
var ErrNoOverlay = errors.New("no overlay network")

// Peers is what a network that spans hosts has of the others on this one.
type Peers struct {
	// Device is the network's VXLAN or WireGuard device, and MTU its MTU; 0: it is not there.
	Device string
	MTU    int
	// Trouble is what is wrong with the device itself, and what to do.
	Trouble []string
	Peers   []Peer
}

// Peer is another host of the network.
type Peer struct {
	model.Node
	// Ways lead to the blocks of Node, of the address families that this host
	// has a block of, too.
	Ways []PeerWay
	// FDB says where frames for the host go; if the network is encrypted, whether the host
	// is a peer of the device, with its key, endpoint and blocks.
	FDB Entry
	// Underlay is whether the host answered without the tunnel; the zero
	// Answer: it was not asked.
	Underlay Answer
	// Advice is what to do; none if all is well.
	Advice []string
}

// PeerWay is how this host leads to a block of another.
type PeerWay struct {
	Block netip.Prefix
	Via   netip.Addr // the other's end of the tunnel
	// Neighbour is the zero Entry if the network is encrypted.
	Route, Neighbour Entry
	// Answer is to a small packet through the tunnel, and Full to one of the
	// device's MTU; the zero Answer: it was not asked.
	Answer, Full Answer
	// Direct is the device by which the block is led to without the tunnel; empty: by the tunnel.
	Direct string
	device string // by which the route leads
	// Largest is, if a small packet came back and a full one did not, the size of
	// the largest that did.
	Largest int
}

// EntryState says how something that is wanted is in the kernel.
type EntryState string

// The states.
const (
	EntryPresent   EntryState = "present"
	EntryMissing   EntryState = "missing"
	EntryDiffering EntryState = "differing"
)

// Entry is the state of something that is wanted, and what stands in its place
// if it differs.
type Entry struct {
	State   EntryState
	Instead string
}

// Answer is what came of an ICMP echo request, or of several.
type Answer struct {
	Size int // of the packet, in bytes
	Sent int
	RTT  time.Duration // 0: no answer
	Err  error         // why it could not be sent
}

// asked says that the answer is one.
func (a Answer) asked() bool { return a.Size > 0 }

// SpanningNetwork returns a network that spans hosts, by its record or by what
// an agent wrote of it, as before its first container. It is ErrNotFound if there
// is neither, and ErrNoOverlay for a network of one host.
func (o *Operator) SpanningNetwork(name string) (*engine.Network, error) {
	n, err := o.Network(name)
	if errors.Is(err, model.ErrNotFound) {
		if kept, fileErr := o.keptNetwork(name); !errors.Is(fileErr, model.ErrNotReady) {
			return kept, fileErr
		}
	}
	if err == nil && n.Driver() != plan.DriverOverlay {
		return nil, ErrNoOverlay
	}
	return n, err
}

// SpanningNetworks returns all of them, in the order of their names.
func (o *Operator) SpanningNetworks(ctx context.Context) ([]*engine.Network, error) {
	all, err := o.Networks(ctx)
	all = slices.DeleteFunc(all, func(n *engine.Network) bool { return n.Driver() != plan.DriverOverlay })
	names, filesErr := o.NodeFiles()
	errs := []error{err, filesErr}
	for _, name := range names {
		if slices.ContainsFunc(all, func(n *engine.Network) bool { return n.Name() == name }) {
			continue
		}
		n, err := o.keptNetwork(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b *engine.Network) int { return strings.Compare(a.Name(), b.Name()) })
	return all, errors.Join(errs...)
}

// keptNetwork returns a network as its node file has it.
func (o *Operator) keptNetwork(name string) (*engine.Network, error) {
	f, err := o.NodeFile(name)
	if err != nil {
		return nil, err
	}
	return o.DefineNetwork(plan.DriverOverlay, name, engine.WithConfig(f.Apply(model.NetworkConfig{})))
}

// Peers says what the kernel has of each other host of the network, and changes
// nothing. It goes by the network's record or, where an agent keeps the network,
// by what that wrote last. A network of one host is ErrNoOverlay.
func (o *Operator) Peers(ctx context.Context, n *engine.Network) (_ Peers, err error) {
	leave, err := o.Enter()
	if err != nil {
		return Peers{}, err
	}
	defer leave(&err)
	p, err := o.findPeers(ctx, n)
	p.advise()
	return p.Peers, err
}

// CheckPeers is Peers, and besides asks each host by ICMP echo whether it
// answers through the tunnel, to a small packet and to one as large as the tunnel
// takes; all of them at once, no longer than 2 × wait for all. A network with
// NoHost is not asked: this host may not. It needs CAP_NET_RAW.
func (o *Operator) CheckPeers(ctx context.Context, n *engine.Network, wait time.Duration) (_ Peers, err error) {
	leave, err := o.Enter()
	if err != nil {
		return Peers{}, err
	}
	defer leave(&err)
	p, err := o.findPeers(ctx, n)
	if err == nil && p.MTU > 0 && !n.Config().NoHost {
		err = p.ask(ctx, wait)
	}
	p.advise()
	return p.Peers, err
}

// foundPeers is Peers, and what is known beside.
type foundPeers struct {
	Peers
	port  int
	path  map[netip.Addr]int // MTU of the host's way to a peer, less what the tunnel adds
	agent bool               // an agent keeps the tunnel
	// encrypted says that the tunnel is of WireGuard.
	encrypted bool
}

// whoMends is the end of an advice about what is not in the kernel.
func (f *foundPeers) whoMends() string {
	if f.agent {
		return "ln-agent puts it right: see that it runs, and what its log says"
	}
	return "the next ADD of the network on this host puts it right"
}

func (o *Operator) findPeers(ctx context.Context, n *engine.Network) (foundPeers, error) {
	now := *n.Plan()
	if now.Config.Tunnel.Agent {
		f, err := o.NodeFile(n.Name())
		if err != nil {
			return foundPeers{}, err
		}
		now.Config = f.Apply(now.Config)
	}
	t := now.Config.Tunnel
	if !t.Used() {
		return foundPeers{}, ErrNoOverlay
	}
	k, err := o.findTunnels(ctx, &now)
	if err != nil {
		return foundPeers{}, err
	}
	out := foundPeers{Peers: Peers{Device: k.device, MTU: k.MTU}, port: t.PortOf(n.Name()), path: map[netip.Addr]int{}, agent: t.Agent, encrypted: t.Encrypted()}
	for _, e := range k.Device {
		out.Trouble = append(out.Trouble, e.Error()+": "+out.whoMends())
	}
	for _, node := range t.Nodes {
		if node.Address == t.Self {
			continue
		}
		p := Peer{Node: node}
		for _, b := range node.Subnets {
			if way, there := k.ways[b]; there {
				way.Block, way.Via = b, b.Masked().Addr()
				p.Ways = append(p.Ways, way)
			}
		}
		switch {
		case t.Encrypted() && t.Agent:
			p.FDB = k.peer(node.KeyOf(node.Epoch).PublicKey)
		case t.Encrypted():
			p.FDB = k.peer(node.PublicKey)
		default:
			p.FDB = entryOf(k.FDB[len(out.Peers.Peers)])
		}
		out.Peers.Peers = append(out.Peers.Peers, p)
		if mtu, err := o.kernel.PathMTU(t.Self, []netip.Addr{node.Address}, t.Device); err == nil {
			out.path[node.Address] = t.MTU(mtu)
		}
	}
	return out, nil
}

// foundTunnels are a network's devices as the kernel has them: what Found has of the first,
// which of two is the newer one, with the trouble of both.
type foundTunnels struct {
	tunnel.Found
	device string
	ways   map[netip.Prefix]PeerWay
	peers  map[wireguard.Key]Entry
}

// peer is the entry of a host by its key; EntryMissing without one.
func (f foundTunnels) peer(k wireguard.Key) Entry {
	if e, there := f.peers[k]; there {
		return e
	}
	return Entry{State: EntryMissing}
}

func (o *Operator) findTunnels(ctx context.Context, n *plan.Network) (foundTunnels, error) {
	all := foundTunnels{ways: map[netip.Prefix]PeerWay{}, peers: map[wireguard.Key]Entry{}}
	for i, t := range n.Tunnels() {
		if t.Secure != nil {
			t.Secure.Socket = wireguard.SocketPath(o.StateDir, t.Name)
		}
		f, err := o.kernel.Tunnels().FindTunnel(ctx, t)
		if err != nil {
			return all, err
		}
		for j, r := range t.Routes {
			all.ways[r.Dst] = PeerWay{Route: entryOf(f.Routes[j]), device: t.Name}
		}
		for j, r := range t.Direct {
			all.ways[r.Dst] = PeerWay{Route: entryOf(f.Direct[j]), device: r.Device, Direct: r.Device}
		}
		all.addNeighbours(t, f)
		for j, p := range f.Peers {
			all.peers[t.Secure.Peers[j].PublicKey] = entryOf(p)
		}
		if i == 0 {
			all.device, all.Found = t.Name, f
		} else {
			all.Device = append(all.Device, f.Device...)
		}
	}
	return all, nil
}

// addNeighbours adds the entries of a VXLAN device to the ways of the blocks that they are of.
func (f foundTunnels) addNeighbours(t tunnel.Tunnel, have tunnel.Found) {
	of := map[netip.Addr]Entry{}
	for i, n := range t.Neighbours {
		of[n.Addr] = entryOf(have.Neighbours[i])
	}
	for block, w := range f.ways {
		if e, there := of[block.Addr()]; there {
			w.Neighbour = e
			f.ways[block] = w
		}
	}
}

func entryOf(e tunnel.Entry) Entry { return Entry{EntryState(e.State), e.Instead} }

func (e Entry) problem(what string) string {
	switch e.State {
	case EntryMissing:
		return what + " is missing"
	case EntryDiffering:
		return what + " is another: " + e.Instead
	}
	return ""
}

// problems names the entries of the peer that the kernel lacks or has wrong.
func (f *foundPeers) problems(p Peer) []string {
	var all []string
	for _, w := range p.Ways {
		all = append(all, w.Route.problem("the route to "+w.Block.String()), w.Neighbour.problem("the neighbour "+w.Via.String()))
	}
	entry := "the forwarding entry"
	if f.encrypted {
		entry = "the WireGuard peer"
	}
	all = append(all, p.FDB.problem(entry))
	return slices.DeleteFunc(all, func(s string) bool { return s == "" })
}

// advise says for each peer what to do.
func (f *foundPeers) advise() {
	for i := range f.Peers.Peers {
		p := &f.Peers.Peers[i]
		if all := f.problems(*p); len(all) > 0 && f.MTU > 0 {
			p.Advice = append(p.Advice, strings.Join(all, "; ")+": "+f.whoMends())
		}
		silent := slices.IndexFunc(p.Ways, func(w PeerWay) bool { return w.Answer.asked() && w.Answer.RTT == 0 })
		if silent >= 0 {
			p.Advice = append(p.Advice, f.whySilent(*p, p.Ways[silent]))
		}
		f.adviseMTU(p)
	}
}

func (f *foundPeers) whySilent(p Peer, w PeerWay) string {
	at, a := w.Via, w.Answer
	if a.Err != nil {
		return fmt.Sprintf("an ICMP echo request to %s cannot be sent by %s: %v: look at the firewall of this host", at, f.Device, a.Err)
	}
	how := "through the tunnel"
	if w.Direct != "" {
		how = "by " + w.Direct
	}
	said := fmt.Sprintf("%d ICMP echo requests of %d bytes to %s %s, no answer", a.Sent, a.Size, at, how)
	switch {
	case len(f.problems(p)) > 0:
		return said
	case p.Underlay.RTT == 0:
		return fmt.Sprintf("%s; nor does %s answer on the underlay: the host is down, or no way leads there", said, p.Address)
	}
	if w.Direct != "" {
		return fmt.Sprintf("%s, though %s answers on the underlay: ln-agent leads there by the tunnel again within seconds", said, p.Address)
	}
	if f.encrypted {
		return fmt.Sprintf("%s, though %s answers on the underlay: UDP port %d blocked on the way or by a firewall of either host? "+
			"or has the network another publicKey, port or nodes there, or is not there yet (it comes with the first container)", said, p.Address, f.port)
	}
	return fmt.Sprintf("%s, though %s answers on the underlay: UDP port %d blocked on the way or by a firewall of either host? "+
		"or the network is not there yet (it comes with the first container), or has another vni, port or nodes there", said, p.Address, f.port)
}

func (f *foundPeers) adviseMTU(p *Peer) {
	for _, w := range p.Ways {
		if w.Largest > 0 {
			p.Advice = append(p.Advice, fmt.Sprintf(`the MTU of the underlay is smaller: %d bytes come back from %s, and %d, the tunnel's MTU, do not: `+
				`raise the MTU on the way to %s by %d, or set "mtu": %d in the configuration of every host`,
				w.Largest, w.Via, f.MTU, p.Address, f.MTU-f.safeMTU(p, w), f.safeMTU(p, w)))
			return // the other family has the same reason
		}
	}
	if fits, ok := f.path[p.Address]; ok && f.MTU > fits {
		p.Advice = append(p.Advice, fmt.Sprintf(`the MTU of the underlay is smaller: this host's route to %s leaves %d bytes, and the tunnel's MTU is %d, `+
			`so larger packets go in fragments: raise it, or set "mtu": %d in the configuration of every host`, p.Address, fits, f.MTU, fits))
	}
}

// vlanTag is how many bytes more than its MTU a link of the underlay may let through.
const vlanTag = 4

// safeMTU is the MTU that surely gets through where the largest packet is known that did: that is
// too much by a VLAN tag, unless this host's own way to the peer is what limits it.
func (f *foundPeers) safeMTU(p *Peer, w PeerWay) int {
	if fits, known := f.path[p.Address]; known && w.Largest >= fits && w.Direct == "" {
		return fits
	}
	return w.Largest - vlanTag
}
