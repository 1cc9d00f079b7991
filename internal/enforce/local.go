package enforce

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall/admit"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/netpolicy"
	"github.com/libnet-cni/libnet/internal/state"
)

// place names an attachment of this host.
type place struct{ network, container, ifName string }

// attachment is one of this host, as its record says.
type attachment struct {
	port, bridge string
	addrs        []netip.Addr
	gateways     []netip.Addr
	pod          netpolicy.Key // zero: it says none
	uid          string
	addressed    bool // its addresses are all known
	apart        bool // its port exchanges no frames with others like it
	looked       bool // apart is known
	network
	homes []netip.Prefix // of which pods of this host get addresses
}

// network is what the record of an attachment's network says.
type network struct {
	routed  bool // the gateway is to be an address of the bridge
	overlay bool
}

// follow takes the records over whenever they change, until ctx ends.
func (e *Enforcer) follow(ctx context.Context, dir string) error {
	f, err := state.New(dir).Follow()
	for ; err != nil; f, err = state.New(dir).Follow() { // other programs may have all of inotify
		e.Trouble("records in "+dir, err)
		if !pass(ctx, followAgain) {
			return ctx.Err()
		}
	}
	defer context.AfterFunc(ctx, func() { _ = f.Close() })()
	for ctx.Err() == nil {
		err := f.Changes(func(c state.Change) {
			e.locked(func() bool { return e.record(place{c.Network, c.ContainerID, c.IfName}, c.Record) })
		}, func() error { return nil })
		if ctx.Err() != nil {
			break
		}
		e.Trouble("records in "+dir, err)
		e.Synced("records in " + dir)
		if errors.Is(err, unix.ENOSPC) && pass(ctx, followAgain) {
			continue // no event tells of what is not watched
		}
		if err := f.Wait(); err != nil {
			break // closed
		}
	}
	_ = f.Close()
	return ctx.Err()
}

// followAgain is how soon records are followed again that could not be.
const followAgain = time.Second

// pass waits for a time; false: ctx ended.
func pass(ctx context.Context, most time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(most):
		return true
	}
}

// record takes a record over; nil: it is gone.
func (e *Enforcer) record(at place, rec *state.Endpoint) bool {
	before, had := e.places[at]
	if had {
		e.forget(at, before)
	}
	now := attachment{}
	if rec != nil && rec.HostName != "" {
		now = attachmentOf(rec)
		now.network = e.network(at.network)
		for _, a := range rec.Addresses {
			if p := a.Prefix; now.overlay && p.IsValid() && !p.IsSingleIP() {
				now.homes = append(now.homes, p.Masked())
			}
		}
		e.places[at] = now
		for _, a := range now.addrs {
			e.byAddr[a] = at
		}
		if now.pod != (netpolicy.Key{}) {
			if e.byPod[now.pod] == nil {
				e.byPod[now.pod] = map[place]bool{}
			}
			e.byPod[now.pod][at] = true
		}
	}
	touched := map[netpolicy.Key]bool{before.pod: true, now.pod: true}
	for _, a := range slices.Concat(before.addrs, now.addrs) {
		for _, k := range e.claims[a] {
			touched[k] = true
		}
	}
	for k := range touched {
		e.tell(k)
	}
	return true
}

func (e *Enforcer) forget(at place, rec attachment) {
	delete(e.places, at)
	for _, a := range rec.addrs {
		if e.byAddr[a] == at {
			delete(e.byAddr, a)
		}
	}
	if delete(e.byPod[rec.pod], at); len(e.byPod[rec.pod]) == 0 {
		delete(e.byPod, rec.pod)
	}
}

func attachmentOf(rec *state.Endpoint) attachment {
	a := attachment{port: rec.HostName, bridge: rec.Bridge, uid: rec.PodUID, addressed: rec.Phase == state.PhaseReady || len(rec.Addresses) > 0}
	addrs, gateways := rec.NamedAddrs()
	for _, x := range addrs {
		a.addrs = append(a.addrs, x.Unmap())
	}
	a.gateways = gateways
	if ns, name, is := strings.Cut(rec.Workload, "/"); is && ns != "" {
		a.pod = netpolicy.Key{Namespace: ns, Name: name}
	}
	return a
}

// known says whether what policies say of an attachment is known, so that its port may be opened. A
// pod of a namespace without policies need not be known; nor does what is no pod.
func (e *Enforcer) known(rec attachment) bool {
	if rec.pod == (netpolicy.Key{}) || !e.compiler.Judges(rec.pod.Namespace) {
		return true
	}
	p := e.pods[rec.pod]
	return p != nil && p.is(rec.uid) && rec.addressed
}

// opened are the elements of this host's attachments. An error says that they are not known now: the
// kernel has to stay as it is.
func (e *Enforcer) opened() (all []admit.Elem, err error) {
	for _, home := range e.homes() {
		all = append(all, e.tables.Home(home))
	}
	conn, err := e.links()
	if err != nil {
		return nil, fmt.Errorf("look at bridges: %w", err)
	}
	defer conn.Close()
	e.lacking = nil
	bridges := map[string]bridge{}
	for at, rec := range e.places {
		if !rec.looked {
			if rec, err = looked(conn, rec); err != nil {
				return nil, err
			}
			e.places[at] = rec
		}
		if !e.known(rec) {
			continue
		}
		all = append(all, e.tables.Open(rec.port))
		b, looked := bridges[rec.bridge]
		if !looked {
			if b, err = bridgeNamed(conn, rec.bridge); err != nil {
				return nil, err
			}
			bridges[rec.bridge] = b
		}
		for _, a := range rec.addrs {
			all = append(all, e.tables.Local(a))
			switch gateways := rec.gatewaysOf(a); {
			case b.mac == nil || !rec.looked || rec.apart || len(gateways) == 0:
			case b.has(gateways):
				all = append(all, e.tables.Lift(a, b.mac))
			case rec.routed:
				e.lacks(fmt.Errorf("bridge %s has not the gateway address %s of its pods: what they send each other is not judged", rec.bridge, gateways[0]))
			}
		}
	}
	return all, nil
}

// present are the elements that leave open what runs already, whatever is known of it.
func (e *Enforcer) present() (all []admit.Elem, err error) {
	conn, err := e.links()
	if err != nil {
		return nil, fmt.Errorf("look at ports: %w", err)
	}
	defer conn.Close()
	for at, rec := range e.places {
		if rec, err = looked(conn, rec); err != nil {
			return nil, err
		}
		e.places[at] = rec
		if !rec.looked {
			continue
		}
		all = append(all, e.tables.Open(rec.port))
		for _, a := range rec.addrs {
			all = append(all, e.tables.Local(a))
		}
	}
	return all, nil
}

// looked reads an attachment's port, if it is there, and has it be of the group by which rules find
// it: those that an older release made are of none.
func looked(conn *netlink.Conn, rec attachment) (attachment, error) {
	d, err := conn.Device(rec.port)
	if err == nil && d.Port && d.Group != admit.PortGroup {
		err = conn.SetLink(d.Index, 0, 0, netlink.AttrUint32(unix.IFLA_GROUP, admit.PortGroup))
	}
	if errors.Is(err, netlink.ErrNotFound) {
		return rec, nil // not made yet, or gone
	}
	if err != nil {
		return rec, fmt.Errorf("port %s: %w", rec.port, err)
	}
	if d.Port {
		rec.looked, rec.apart = true, d.Isolated
	}
	return rec, nil
}

// homes are the prefixes of which pods of this host get addresses, and nothing else does: none is
// part of another. The subnet of a bridge may be that of a LAN.
func (e *Enforcer) homes() (largest []netip.Prefix) {
	all := slices.Clone(e.blocks)
	for _, rec := range e.places {
		all = append(all, rec.homes...)
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int { return cmp.Compare(a.Bits(), b.Bits()) })
	for _, home := range all {
		if !slices.ContainsFunc(largest, home.Overlaps) {
			largest = append(largest, home)
		}
	}
	return largest
}

// Blocks are all prefixes, beside those of overlay networks, of which pods of this host get addresses.
func (e *Enforcer) Blocks(blocks []netip.Prefix) {
	var now []netip.Prefix
	for _, b := range blocks {
		now = append(now, b.Masked())
	}
	e.locked(func() bool {
		news := !slices.Equal(now, e.blocks)
		e.blocks = now
		return news
	})
}

// bridge is what a bridge is now.
type bridge struct {
	mac   net.HardwareAddr // nil: it is not there
	addrs []netip.Addr
}

// bridgeNamed reads a bridge; one that is not there has no address.
func bridgeNamed(conn *netlink.Conn, name string) (b bridge, err error) {
	if name == "" {
		return b, nil
	}
	d, err := conn.Device(name)
	if err == nil {
		var addrs []netlink.Address
		addrs, err = conn.Addrs(d.Index, 0)
		for _, a := range addrs {
			b.addrs = append(b.addrs, a.Prefix.Addr())
		}
	}
	if errors.Is(err, netlink.ErrNotFound) {
		return bridge{}, nil
	}
	if err != nil {
		return bridge{}, fmt.Errorf("bridge %s: %w", name, err)
	}
	b.mac = d.MAC
	return b, nil
}

// has says whether one of these is an address of the bridge. Then the host leads packets between its
// ports, unless they are kept apart. A port that has not been read exchanges no frames: it is not there.
func (b bridge) has(gateways []netip.Addr) bool {
	return slices.ContainsFunc(gateways, func(g netip.Addr) bool { return slices.Contains(b.addrs, g) })
}

// gatewaysOf are those of the family of an address.
func (rec attachment) gatewaysOf(a netip.Addr) (all []netip.Addr) {
	for _, g := range rec.gateways {
		if g.Is4() == a.Is4() {
			all = append(all, g)
		}
	}
	return all
}

// lacks notes, once, what is wrong with a bridge.
func (e *Enforcer) lacks(what error) {
	if !slices.ContainsFunc(e.lacking, func(err error) bool { return err.Error() == what.Error() }) {
		e.lacking = append(e.lacking, what)
	}
}

// network reads the record of a network. The bridge of one whose record cannot be read may be meant to
// have its gateway addresses.
func (e *Enforcer) network(name string) network {
	for _, dir := range e.conf.StateDirs {
		n, err := state.New(dir).LoadNetwork(name)
		if err != nil {
			continue
		}
		var conf struct{ Gateway, DefaultGateway bool }
		err = json.Unmarshal(n.Config, &conf)
		return network{routed: err != nil || conf.Gateway || conf.DefaultGateway, overlay: n.Driver == driverOverlay}
	}
	return network{routed: true}
}

// driverOverlay is the driver of overlay networks in records, as package plan names it.
const driverOverlay = "overlay"
