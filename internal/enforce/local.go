package enforce

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

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
}

// follow takes the records over whenever they change, until ctx ends.
func (e *Enforcer) follow(ctx context.Context, dir string) error {
	f, err := state.New(dir).Follow()
	if err != nil {
		return err
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
		if err := f.Wait(); err != nil {
			break // closed
		}
	}
	_ = f.Close()
	return ctx.Err()
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
		for _, a := range rec.Addresses {
			if p := a.Prefix; p.IsValid() && !p.IsSingleIP() {
				e.homes[p.Masked()] = true
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
	for home := range e.homes {
		if !e.inside(home) {
			all = append(all, e.tables.Home(home))
		}
	}
	conn, err := e.links()
	if err != nil {
		return nil, fmt.Errorf("look at bridges: %w", err)
	}
	defer conn.Close()
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
			b = bridgeNamed(conn, rec.bridge)
			bridges[rec.bridge] = b
		}
		for _, a := range rec.addrs {
			all = append(all, e.tables.Local(a))
			if b.routes(rec, a) {
				all = append(all, e.tables.Lift(a, b.mac))
			}
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

// inside says that a home is part of a larger one.
func (e *Enforcer) inside(home netip.Prefix) bool {
	for other := range e.homes {
		if other.Bits() < home.Bits() && other.Overlaps(home) {
			return true
		}
	}
	return false
}

// Blocks are prefixes of which pods of this host get addresses.
func (e *Enforcer) Blocks(blocks []netip.Prefix) {
	e.locked(func() (news bool) {
		for _, b := range blocks {
			news = news || !e.homes[b.Masked()]
			e.homes[b.Masked()] = true
		}
		return news
	})
}

// bridge is what a bridge is now.
type bridge struct {
	mac   net.HardwareAddr // nil: it is not there
	addrs []netip.Addr
}

func bridgeNamed(conn *netlink.Conn, name string) (b bridge) {
	d, err := conn.Device(name)
	if err != nil {
		return b
	}
	addrs, err := conn.Addrs(d.Index, 0)
	if err != nil {
		return b
	}
	for _, a := range addrs {
		b.addrs = append(b.addrs, a.Prefix.Addr())
	}
	b.mac = d.MAC
	return b
}

// routes says whether the host leads packets between the pods of a bridge: it has their gateway, and
// they are not kept apart. A port whose state is not known yet exchanges no frames: it is not there.
func (b bridge) routes(rec attachment, a netip.Addr) bool {
	return b.mac != nil && rec.looked && !rec.apart && slices.ContainsFunc(rec.gateways, func(g netip.Addr) bool { return g.Is4() == a.Is4() && slices.Contains(b.addrs, g) })
}
