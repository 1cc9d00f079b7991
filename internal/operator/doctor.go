package operator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/kernel"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/state"
)

// Finding is what Diagnose found of one thing.
type Finding struct {
	About  string // "forwarding IPv4"
	Found  string // "off, and network \"net1\" needs it"
	Advice string // what to do about it; empty: it is healthy
}

// Diagnose looks at what networks of this host need to work, and changes
// nothing but that it sets unreadable records aside, as every reader does.
func (o *Operator) Diagnose(ctx context.Context) (all []Finding) {
	leave, err := o.Enter()
	if f, ok := permitted(err); !ok {
		return []Finding{f}
	}
	if err != nil {
		return []Finding{{"network namespace", err.Error(), "try again as root; nothing was looked at"}}
	}
	defer leave(&err) // a thread that cannot come back ends with its goroutine
	if f, ok := permitted(o.rules.NFTables.Available()); !ok {
		return []Finding{f}
	}
	s := o.survey(ctx)
	all = []Finding{o.checkBackend()}
	all = append(all, s.checkForwarding(ctx)...)
	all = append(all, s.checkPolicyRules(ctx)...)
	all = append(all, s.checkForeign(ctx)...)
	all = append(all, s.checkInput(ctx)...)
	all = append(all, s.checkWayOut()...)
	all = append(all, o.checkState(), o.checkRecords(s.unread))
	all = append(all, s.checkLost(ctx)...)
	all = append(all, s.checkRules(ctx))
	guards := s.checkGuards(ctx)
	all = append(all, guards...)
	if !slices.ContainsFunc(guards, func(f Finding) bool { return f.Advice != "" }) { // else that tells of the same
		all = append(all, s.checkStrays(ctx)...)
	}
	all = append(all, s.checkNames(ctx)...)
	all = append(all, s.checkBridges(ctx)...)
	all = append(all, s.checkIPv6()...)
	all = append(all, s.checkSubnets()...)
	all = append(all, s.checkMTU(ctx)...)
	all = append(all, s.checkAttachments(ctx)...)
	all = append(all, s.checkKeys()...)
	all = append(all, s.checkPublications(ctx)...)
	all = append(all, s.checkPorts()...)
	all = append(all, o.checkServices(ctx)...)
	all = append(all, o.checkNetworkPolicies(ctx)...)
	all = append(all, s.checkDead()...)
	return append(all, s.checkPools(ctx)...)
}

// survey is what the records tell, read once.
type survey struct {
	o         *Operator
	networks  []*engine.Network
	endpoints map[*engine.Network][]*engine.Endpoint // alive and joined
	dead      []model.ID
	unread    error
}

func (o *Operator) survey(ctx context.Context) survey {
	s := survey{o: o, endpoints: map[*engine.Network][]*engine.Endpoint{}}
	s.networks, s.unread = o.Networks(ctx)
	for _, n := range s.networks {
		endpoints, err := n.Endpoints(ctx)
		s.unread = errors.Join(s.unread, err)
		for _, e := range endpoints {
			switch s.o.Inspect(e).Life {
			case Alive:
				s.endpoints[n] = append(s.endpoints[n], e)
			case Dead:
				s.dead = append(s.dead, e.ID())
			}
		}
	}
	published, err := o.Publications(ctx)
	s.unread = errors.Join(s.unread, err)
	for _, p := range published {
		if p.Life == Dead {
			s.dead = append(s.dead, p.ID)
		}
	}
	return s
}

func (o *Operator) checkBackend() Finding {
	f := Finding{About: "firewall", Found: "nf_tables"}
	err := o.rules.NFTables.Available()
	switch {
	case err == nil:
	case o.rules.IPTables.Available() == nil:
		f.Found = "iptables, as the kernel has no nf_tables"
	default:
		f.Found, f.Advice = err.Error(), "load the kernel's module nf_tables (modprobe nf_tables), or install iptables"
	}
	return f
}

// forwards says for which family packets of the network's containers have to be
// forwarded now.
func (s survey) forwards(n *engine.Network) (v4, v6 bool) {
	if !n.Config().HasGateway() || n.Config().IsInternal() {
		return false, false
	}
	for _, e := range s.endpoints[n] {
		e4, e6 := e.Addressing().Families()
		v4, v6 = v4 || e4, v6 || e6
	}
	return v4, v6
}

func (s survey) checkForwarding(ctx context.Context) []Finding {
	f4, f6 := Finding{About: "forwarding IPv4", Found: "on"}, Finding{About: "forwarding IPv6", Found: "on"}
	h, err := kernel.Open()
	if err != nil {
		f4.Found, f4.Advice = oneLine(err), "run it as root"
		return []Finding{f4}
	}
	defer h.Close()
	on4, on6, err := h.Forwarding()
	if err != nil {
		f4.Found, f4.Advice = err.Error(), "mount /proc"
		return []Finding{f4}
	}
	var need4, need6, bridges []string
	for _, n := range s.networks {
		v4, v6 := s.forwards(n)
		if v4 {
			need4, bridges = append(need4, n.Name()), append(bridges, gatewayInterface(n))
		}
		if v6 {
			need6 = append(need6, n.Name())
		}
	}
	f4.off(on4, need4, "sysctl -w net.ipv4.ip_forward=1, and look in /etc/sysctl.d for what switched it off")
	f6.off(on6, need6, "sysctl -w net.ipv6.conf.all.forwarding=1, and look in /etc/sysctl.d for what switched it off")
	if on4 && len(need4) > 0 {
		f4.offByInterface(h.NotForwarding(ctx, bridges))
	}
	return append([]Finding{f4, f6}, checkAdvertisements(h.LostAdvertisements(ctx))...)
}

// gatewayInterface is the interface by which packets of the network's
// containers come to the host.
func gatewayInterface(n *engine.Network) string {
	if n.Config().VLAN > 0 {
		return fmt.Sprintf("%s.%d", n.Config().Bridge, n.Config().VLAN)
	}
	return n.Config().Bridge
}

// offByInterface says which interfaces do not forward though the host does.
func (f *Finding) offByInterface(bridges, uplinks []string, err error) {
	off := append(bridges, uplinks...)
	switch {
	case err != nil:
		f.Found, f.Advice = oneLine(err), "try again"
	case len(off) > 0:
		f.Found = "on, but off for " + strings.Join(off, ", ") + ": what comes in there goes no further"
		f.Advice = fmt.Sprintf("sysctl -w net/ipv4/conf/%s/forwarding=1, and look for what switched it off: /etc/sysctl.d, or IPv4Forwarding= in that interface's .network file of systemd-networkd", off[0])
	}
}

// checkAdvertisements names the interfaces by which this host loses its own
// IPv6, or has lost it.
func checkAdvertisements(lost []string, err error) []Finding {
	f := Finding{About: "IPv6 of the host"}
	switch {
	case err != nil:
		f.Found, f.Advice = oneLine(err), "try again"
	case len(lost) == 0:
		return nil
	default:
		f.Found = fmt.Sprintf("%s takes no router advertisements, as IPv6 forwarding is on and accept_ra is 1: this host loses its own IPv6 address and default route", strings.Join(lost, ", "))
		f.Advice = fmt.Sprintf("sysctl -w net/ipv6/conf/%s/accept_ra=2, in /etc/sysctl.d too; the next advertisement brings them back", lost[0])
	}
	return []Finding{f}
}

func (f *Finding) off(on bool, needed []string, advice string) {
	switch {
	case on:
	case len(needed) == 0:
		f.Found = "off; nothing needs it"
	default:
		f.Found, f.Advice = fmt.Sprintf("off; needed by network %s", strings.Join(needed, ", ")), advice
	}
}

func (o *Operator) checkState() Finding {
	f := Finding{About: "state directory", Found: o.StateDir}
	if _, err := os.Stat(o.StateDir); errors.Is(err, fs.ErrNotExist) {
		f.Found += ": not there yet"
		return f
	}
	if err := o.dir.Writable(); err != nil {
		f.Found, f.Advice = err.Error(), "ADD and DEL need it: mount it writable (a tmpfs will do)"
	}
	return f
}

// checkRecords counts what could not be read, now or by an earlier reader.
func (o *Operator) checkRecords(unread error) Finding {
	f := Finding{About: "records", Found: "all are readable"}
	var aside []string
	err := filepath.WalkDir(o.StateDir, func(path string, _ fs.DirEntry, err error) error {
		if record, is := strings.CutSuffix(path, ".corrupt"); is {
			if _, err := os.Stat(record); err != nil { // else it was rebuilt
				aside = append(aside, path)
			}
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		unread = errors.Join(unread, err)
	}
	networks, err := o.networks.Networks()
	untold := slices.DeleteFunc(networks, func(rec state.Network) bool { return rec.Fingerprint != untoldConfig })
	if err != nil && !errors.Is(err, state.ErrCorrupt) {
		unread = errors.Join(unread, err)
	}
	switch {
	case len(untold) > 0:
		f.Found = fmt.Sprintf("network %q: whether it was closed cannot be told, and it is open", untold[0].Name)
		f.Advice = "start a container of it, or name the directory of its configuration: lnctl repair --conf-dir"
	case len(aside) > 0:
		f.Found = fmt.Sprintf("%d cannot be read and are set aside: %s", len(aside), strings.Join(aside, ", "))
		f.Advice = "lnctl repair writes it anew by what the kernel tells"
	case unread != nil:
		f.Found, f.Advice = oneLine(unread), "see that the files can be read by root"
	}
	return f
}

// checkRules compares the rules that all networks share, which CHECK of one
// attachment does, too, but for those without containers.
func (s survey) checkRules(ctx context.Context) Finding {
	f := Finding{About: "rules", Found: "as this release writes them"}
	ruled, byIPTables := false, 0
	for _, endpoints := range s.endpoints {
		for _, e := range endpoints {
			switch {
			case !e.Record().Rules:
			case s.o.rules.Of(e.Record().Backend) == s.o.rules.IPTables:
				byIPTables++
			default:
				ruled = true
			}
		}
	}
	switch {
	case !ruled && byIPTables > 0: // those are compared with each attachment
		f.Found = fmt.Sprintf("by iptables, for %d of the attachments below", byIPTables)
		return f
	case !ruled:
		f.Found = "none are needed now"
		return f
	}
	if err := s.o.rules.Intact(ctx, model.BackendNFTables, firewall.Network{}); err != nil {
		f.Found, f.Advice = oneLine(err), "lnctl repair puts them back; so do STATUS and the next ADD"
		return f
	}
	foreign, err := s.o.nft.Ownerless(ctx)
	switch {
	case err != nil:
		f.Found, f.Advice = oneLine(err), "try again"
	case len(foreign) > 0:
		f.Found = "elements in our sets that are not ours, as they have no owner: " + strings.Join(foreign, "; ")
		f.Advice = "lnctl repair deletes them; look for what put them there"
	}
	return f
}

func (s survey) checkBridges(ctx context.Context) []Finding {
	var all []Finding
	for _, n := range s.networks {
		if len(s.endpoints[n]) == 0 {
			continue // made anew with the first container
		}
		err := s.o.kernel.VerifyBridge(ctx, link.Bridge{Name: n.Config().Bridge})
		if !errors.Is(err, netlink.ErrNotFound) { // else no link can be its port
			err = errors.Join(err, n.Unplugged(ctx))
		}
		if err != nil {
			all = append(all, Finding{"bridges", fmt.Sprintf("network %q: %s", n.Name(), oneLine(err)),
				"lnctl repair makes it anew, and puts the containers' links back on it; so do STATUS and the next ADD"})
		}
	}
	if len(all) == 0 {
		return []Finding{{About: "bridges", Found: "all are there"}}
	}
	return all
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
