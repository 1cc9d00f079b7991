package operator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/admit"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/state"
)

// permitted is a finding if rules and links cannot be read: then nothing is known.
func permitted(err error) (Finding, bool) {
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return Finding{}, true
	}
	return Finding{
		About: "privileges", Found: "this user may not look at the host's rules and links, so nothing can be told: " + err.Error(),
		Advice: "run lnctl doctor as root (it needs CAP_NET_ADMIN)",
	}, false
}

// lost is what the kernel has of attachments, beside the records.
type lost struct {
	o        *Operator
	recorded map[model.ID]bool
	networks map[string]bool   // that have a record
	others   map[string]string // networks of other state directories
	links    map[model.ID]link.Owned
}

// checkLost looks for what the kernel has and no record tells of, and for leases
// of attachments that are nowhere.
func (s survey) checkLost(ctx context.Context) []Finding {
	l, err := s.lost(ctx)
	if err != nil {
		return []Finding{{"lost records", "cannot be told: " + oneLine(err), "run lnctl doctor as root, and see that /proc is mounted"}}
	}
	all := slices.Concat(l.records(ctx), l.rules(ctx), l.leases(ctx, s.networks))
	if len(all) == 0 {
		all = []Finding{{About: "lost records", Found: "none: all links, rules and leases have a record"}}
	}
	for _, name := range slices.Sorted(maps.Keys(l.others)) {
		all = append(all, Finding{About: "other records", Found: fmt.Sprintf("those of network %q are in %s: lnctl doctor --state-dir %s looks at it", name, l.others[name], l.others[name])})
	}
	return all
}

func (s survey) lost(ctx context.Context) (lost, error) {
	l := lost{o: s.o, recorded: map[model.ID]bool{}, networks: map[string]bool{}}
	for _, n := range s.networks {
		l.networks[n.Name()] = true
	}
	names, err := s.o.dir.EndpointNetworks()
	for _, name := range names {
		recs, recErr := s.o.dir.Endpoints(name)
		if errors.Is(recErr, state.ErrCorrupt) {
			recErr = nil // checkRecords tells
		}
		err = errors.Join(err, recErr)
		for _, rec := range recs {
			l.recorded[life.IDOf(rec)] = true
		}
	}
	links, others, linkErr := s.o.links(ctx)
	l.links, l.others = links, others
	return l, errors.Join(err, linkErr)
}

// records finds links without a record, and networks without theirs.
func (l lost) records(ctx context.Context) []Finding {
	var all []Finding
	ns, err := l.o.kernel.Namespaces()
	if err != nil {
		return []Finding{{"lost records", "cannot be told: " + oneLine(err), "run lnctl doctor as root"}}
	}
	missing := map[string]bool{}
	for _, id := range slices.SortedFunc(maps.Keys(l.links), compareIDs) {
		if !l.networks[id.Network] {
			missing[id.Network] = true
		}
		if l.recorded[id] {
			continue
		}
		f := Finding{About: "lost records", Found: fmt.Sprintf("%s %s in network %q has a link (%s) and no record", id.ContainerID, id.IfName, id.Network, onBridge(l.links[id])), Advice: "lnctl repair writes it"}
		if _, err := l.o.kernel.Find(ctx, l.links[id], ns); errors.Is(err, netlink.ErrNotFound) {
			f.About, f.Found = "left links", fmt.Sprintf("%s carries the alias of %s %s in network %q and leads to no container", l.links[id].Name, id.ContainerID, id.IfName, id.Network)
			f.Advice = "ip link del " + l.links[id].Name
		}
		all = append(all, f)
	}
	for id := range l.recorded {
		if !l.networks[id.Network] {
			missing[id.Network] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		all = append(all, Finding{"lost records", fmt.Sprintf("network %q has containers and no record", name), "lnctl repair writes it"})
	}
	return all
}

// onBridge names a link, and the bridge that it is on.
func onBridge(o link.Owned) string {
	if o.Master == "" {
		return o.Name
	}
	return o.Name + " on bridge " + o.Master
}

func compareIDs(a, b model.ID) int { return strings.Compare(a.String(), b.String()) }

// rules finds owners of rules that have neither record nor link.
func (l lost) rules(ctx context.Context) []Finding {
	owners, err := l.o.rules.NFTables.List(ctx)
	if errors.Is(err, firewall.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return []Finding{{"left rules", "cannot be told: " + oneLine(err), "try again"}}
	}
	known := map[string]bool{}
	for id := range l.recorded {
		known[firewall.Key(id.String())] = true
	}
	for id := range l.links {
		known[firewall.Key(id.String())] = true
	}
	var all []Finding
	for _, owner := range owners {
		if id, ok := model.ParseOwner(owner); ok && !known[owner] && l.o.elsewhere(id.Network) == "" {
			all = append(all, Finding{"left rules", fmt.Sprintf("%s %s in network %q has rules, and neither a link nor a record", id.ContainerID, id.IfName, id.Network),
				"send DEL for it again, or, when the network has no container any more: lnctl network rm " + id.Network})
		}
	}
	return all
}

// leases finds addresses that are held for attachments that are nowhere. Only
// pools of networks with a record are looked at: of others another plugin may
// hold them.
func (l lost) leases(ctx context.Context, networks []*engine.Network) []Finding {
	var all []Finding
	for _, n := range networks {
		pool, ok := n.IPAM().(*address.Pool)
		if !ok {
			continue
		}
		list, err := pool.List(ctx)
		if err != nil {
			all = append(all, Finding{"left leases", fmt.Sprintf("network %q: cannot be told: %s", n.Name(), oneLine(err)), "see that the directory can be read"})
			continue
		}
		for _, h := range list {
			id := model.ID{Network: n.Name(), ContainerID: h.ContainerID, IfName: h.IfName}
			if _, linked := l.links[id]; h.Problem != "" || h.IfName == "" || linked || l.recorded[id] {
				continue
			}
			if name, is := service.OfLease(id.ContainerID, id.IfName); is {
				if has, err := l.o.Services().Has(id.Network, name); !has && err == nil {
					all = append(all, Finding{"left leases", fmt.Sprintf("%s of network %q is held for service %q, which was never made, or is gone", h.Addr, n.Name(), name), "lnctl repair frees it"})
				}
				continue
			}
			all = append(all, Finding{"left leases", fmt.Sprintf("%s of network %q is held for %s %s, which has neither a link nor a record", h.Addr, n.Name(), id.ContainerID, id.IfName),
				"if no such container is being started: rm " + pool.DataDir() + "/" + n.Name() + "/" + h.Addr.String()})
		}
	}
	return all
}

// checkNetworkPolicies looks whether the policies of Kubernetes are in force, where ln-agent is to
// enforce them.
func (o *Operator) checkNetworkPolicies(ctx context.Context) []Finding {
	const about, start = "network policies", "start ln-agent --kubernetes --network-policy"
	tables := admit.New()
	defer func() { _ = tables.Close() }()
	whole, there, err := tables.Whole(ctx)
	_, markErr := os.Stat(admit.MarkPath(o.dir.Path()))
	wanted, runs := markErr == nil, o.agentRuns()
	switch {
	case !wanted && !there:
		return nil
	case err != nil:
		return []Finding{{about, oneLine(err), "try again"}}
	case !wanted:
		return []Finding{{about, "their rules are there, and no ln-agent is to keep them: new pods stay closed", "nft delete table inet " + admit.TableName + "; nft delete table bridge " + admit.TableName}}
	case !whole && !runs:
		return []Finding{{about, "their rules are missing, or changed by another program, and ln-agent does not run: pods are not isolated", start}}
	case !whole:
		return []Finding{{about, "their rules are missing, or changed by another program: pods are not isolated", "look at the log of ln-agent, which writes them anew"}}
	case !runs:
		return []Finding{{about, "ln-agent does not run: what is in force stays so, changes do not come, and new pods stay closed", start}}
	}
	return []Finding{{About: about, Found: "in force"}}
}

// agentRuns says whether ln-agent keeps the networks of this state directory: it holds a lock.
func (o *Operator) agentRuns() bool {
	f, err := os.Open(filepath.Join(o.dir.Path(), "overlay", "agent.lock")) //nolint:forbidigo // of lnctl alone
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}
