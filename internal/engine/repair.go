package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/sorting"
	"github.com/libnet-cni/libnet/internal/state"
)

// Mended is what Mend did.
type Mended struct {
	// Looked counts the attachments and publications that were looked at.
	Looked int
	// Rewritten: the rules themselves were missing, changed, or of another release.
	Rewritten bool
	// Rules are those whose rules were put back, if these are compared first.
	Rules []model.ID
	// Bridges and Tunnels were made anew, by name.
	Bridges, Tunnels []string
	// Services is what was not as the records of services say, in words.
	Services []string
	// Plugged are those whose links are ports of their bridge again.
	Plugged []model.ID
	// Named are those whose names the kernel answers for again.
	Named []model.ID
	// StrayNames that no record explains the kernel has forgotten.
	StrayNames []string
}

// Compare says whether Mend asks of each attachment whether its rules differ
// before it puts them back, to report it.
type Compare bool

// Mend's ways with the rules of an attachment.
const (
	PutBack      Compare = false
	CompareFirst Compare = true
)

// Repair is Mend without a report: it returns how many it looked at.
func (c *Controller) Repair(ctx context.Context) (looked int, err error) {
	leave, err := c.Enter()
	if err != nil {
		return 0, err
	}
	defer leave(&err)
	done, err := c.Mend(ctx, PutBack)
	return done.Looked, err
}

// Mend puts back what every attachment, tunnel and publication needs of the
// host, by their records: the guards of bridges, rules, then bridges with their
// addresses and ports, tunnels, forwarding. Parts in place stay untouched; an attachment
// that another call is at work on is left to that one, dead ones to Collect. It goes on
// after errors and reports them joined.
func (c *Controller) Mend(ctx context.Context, compare Compare) (_ Mended, err error) {
	leave, err := c.Enter()
	if err != nil {
		return Mended{}, err
	}
	defer leave(&err)
	m := mender{c: c, compare: compare}
	networks := m.allRules(ctx)
	m.done.StrayNames, err = c.names.Strays(ctx, true)
	m.errs = append(m.errs, err, c.shortcuts.Sweep(ctx))
	for _, n := range networks {
		m.links(ctx, n)
	}
	for _, n := range networks {
		left, err := n.tidyServices(ctx)
		m.fail(n, err)
		for _, name := range left {
			m.done.Services = append(m.done.Services, fmt.Sprintf("%s/%s: had an address, and was never made", n.def.Name, name))
		}
	}
	mended, err := c.services.Repair(ctx)
	m.errs = append(m.errs, err)
	for _, f := range mended {
		m.done.Services = append(m.done.Services, f.String())
	}
	return m.done, errors.Join(m.errs...)
}

// mendRules is Mend for the rules alone, which a Publisher has in common with the rest.
func (c *Controller) mendRules(ctx context.Context) {
	m := mender{c: c}
	m.allRules(ctx) // what fails is for the Status of its network
}

// mender is one Mend at work.
type mender struct {
	c       *Controller
	compare Compare
	done    Mended
	errs    []error
}

// allRules puts back the rules of all networks, which it returns, and publications.
func (m *mender) allRules(ctx context.Context) []*Network {
	changed, err := m.c.rules.NFTables.Restore(ctx)
	m.done.Rewritten = changed
	m.errs = append(m.errs, err, m.c.book().RepairAll(ctx, m.guards(ctx, changed)))
	networks, err := m.c.Networks(ctx)
	m.errs = append(m.errs, err)
	for _, n := range networks {
		m.rules(ctx, n)
	}
	m.publications(ctx)
	m.errs = append(m.errs, m.c.Ports().TakeFree(ctx))
	if ctx.Err() == nil {
		m.errs = append(m.errs, m.c.rules.NFTables.Complete(ctx))
	}
	return networks
}

// guards says what gives way to the guards of bridges: after an upgrade, and where
// all is compared, what networks closed under their own names before v0.2.
func (m *mender) guards(ctx context.Context, rewritten bool) firewall.Exactness {
	if !rewritten && m.compare == PutBack {
		return firewall.AddOnly
	}
	how, err := m.c.book().ExactWithoutIndex(ctx, true)
	if err != nil || how != firewall.AdoptBridge {
		return firewall.AddOnly
	}
	return how
}

func (m *mender) fail(n *Network, err error) {
	if err != nil {
		m.errs = append(m.errs, fmt.Errorf("network %q: %w", n.def.Name, err))
	}
}

// rules puts back the rules of a network and of its attachments.
func (m *mender) rules(ctx context.Context, n *Network) {
	m.errs = append(m.errs, m.tunnelRules(ctx, n))
	recs, err := m.c.endpoints.Endpoints(n.def.Name)
	m.errs = append(m.errs, err)
	m.lostFirst(ctx, recs)
	for _, rec := range recs {
		if ctx.Err() != nil {
			m.fail(n, ctx.Err())
			return
		}
		if !rec.Rules && !n.def.Config.NeedsRules() {
			continue
		}
		m.fail(n, m.own(m.c.endpoints, rec, func(rec state.Endpoint) error {
			m.done.Looked++
			e := &Endpoint{n: n, rec: rec}
			if !rec.Rules { // rebuilt when nothing told of any
				e.rec.Rules, e.rec.Backend = true, string(n.backend())
				if err := e.save(); err != nil {
					return err
				}
			}
			if m.compare && e.verifyRules(ctx) == nil {
				return nil
			}
			err := e.reapply(ctx)
			if err == nil && m.compare {
				m.done.Rules = append(m.done.Rules, life.IDOf(rec))
			}
			return err
		}))
	}
}

// tunnelRules is repairTunnelRules by the record as it is while no ADD is at work: one
// with other hosts makes their rules before it writes them into the record.
func (m *mender) tunnelRules(ctx context.Context, n *Network) error {
	if has, err := n.hasTunnel(); !has || err != nil {
		return err
	}
	if n.def.Config.Tunnel.Agent { // whose hosts no record tells
		return n.repairTunnelRules(ctx)
	}
	err := m.c.endpoints.Quiet(ctx, n.def.Name, func() error {
		n, err := m.c.Network(n.def.Name)
		if errors.Is(err, model.ErrNotFound) { // removed meanwhile
			return nil
		}
		if err != nil {
			return err
		}
		return n.repairTunnelRules(ctx)
	})
	if errors.Is(err, state.ErrInUse) && m.c.rules.Intact(ctx, n.def.Config.Backend, m.c.book().InPlace(ctx, n.Plan())) == nil {
		return nil // nothing is missing
	}
	return err
}

// lostFirst has those come first that have no rules in iptables, where to find one
// in order takes processes, too: a Mend whose time is short goes on where the last
// one stopped.
func (m *mender) lostFirst(ctx context.Context, recs []state.Endpoint) {
	inIPTables := func(rec state.Endpoint) bool { return m.c.rules.Of(rec.Backend) == m.c.rules.IPTables }
	if !m.c.rules.IPTables.Used() || !slices.ContainsFunc(recs, inIPTables) {
		return
	}
	owners, err := m.c.rules.IPTables.List(ctx)
	if err != nil {
		return // the order is no more than a help
	}
	lost := func(rec state.Endpoint) int {
		if _, there := slices.BinarySearch(owners, firewall.Key(life.IDOf(rec).String())); there || !inIPTables(rec) {
			return 1
		}
		return 0
	}
	sorting.Stable(recs, func(a, b state.Endpoint) int { return lost(a) - lost(b) })
}

// backend is the one that holds the rules of a network where no record tells.
func (n *Network) backend() model.Backend {
	if n.def.Config.Backend == model.BackendIPTables || n.c.rules.NFTables.Available() != nil {
		return model.BackendIPTables
	}
	return model.BackendNFTables
}

// own calls fn with the record of an attachment that is complete and alive, as
// it is now. It does not while another process holds the attachment: that one
// puts the rules in place or takes them away.
func (m *mender) own(dir endpointRecords, rec state.Endpoint, fn func(state.Endpoint) error) error {
	release, owned, err := dir.TryOwn(rec.Network, rec.ContainerID, rec.IfName)
	if err != nil || !owned {
		return err
	}
	defer release()
	rec, err = dir.LoadEndpoint(rec.Network, rec.ContainerID, rec.IfName)
	if state.Missing(err) {
		return nil // removed meanwhile
	}
	if err != nil || rec.Phase != state.PhaseReady || m.c.dead(rec) {
		return err
	}
	return fn(rec)
}

// verifyRules says what of the endpoint's rules differs.
func (e *Endpoint) verifyRules(ctx context.Context) error {
	p, err := e.plan()
	if err != nil || !p.Rules {
		return err
	}
	network, err := e.n.c.book().Verifiable(ctx, e.n.Plan(), e.rec)
	if err != nil {
		return err
	}
	return e.n.c.Ports().Verify(ctx, e.rec, network, p.Endpoint)
}

func (m *mender) publications(ctx context.Context) {
	recs, err := m.c.Ports().PublicationRecords()
	m.errs = append(m.errs, err)
	for _, rec := range recs {
		m.errs = append(m.errs, m.own(m.c.publications(), rec, func(rec state.Endpoint) error {
			m.done.Looked++
			if m.compare && m.c.Ports().VerifyPublication(ctx, rec) == nil {
				return nil
			}
			err := m.c.Ports().ReapplyPublication(ctx, rec)
			if err == nil && m.compare {
				m.done.Rules = append(m.done.Rules, life.IDOf(rec))
			}
			return err
		}))
	}
}

// repairOthers is that of the Controller if the endpoint found all rules flushed.
func (e *Endpoint) repairOthers(ctx context.Context) {
	if e.restored {
		e.n.c.repairOthers(ctx, e.rec)
	}
	e.restored = false
}

// repairOthers is Mend after all rules were found missing for rec. A failure to put back
// others' rules does not concern it. The caller owns no attachment. The first attachment
// of a host has no others. Where another call is at it already, that one is enough.
func (c *Controller) repairOthers(ctx context.Context, rec state.Endpoint) {
	if !c.Ports().HasOthers(rec) {
		_ = c.rules.NFTables.Complete(ctx)
		return
	}
	release, ok, err := c.sandboxes.TryRepair()
	if err != nil || !ok {
		return
	}
	defer release()
	_, _ = c.Repair(ctx)
}
