package agent

import (
	"cmp"
	"errors"
	"net/netip"
	"reflect"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/nodefile"
	"github.com/libnet-cni/libnet/internal/overlay"
)

// known returns what the node files of this host say, as far as its right to
// its blocks is not over: others may have been given them since.
func (a *Agent) known() []overlay.Known {
	dirs := map[string]bool{a.conf.StateDir: true}
	for _, n := range a.situation().networks {
		dirs[cmp.Or(n.StateDir, a.conf.StateDir)] = true
	}
	var all []overlay.Known
	for dir := range dirs {
		err := within(dir, func(c *engine.Controller) error {
			names, err := c.NodeFiles()
			errs := []error{err}
			for _, name := range names {
				f, err := c.NodeFile(name)
				errs = append(errs, err)
				if err == nil && (f.Until == 0 || f.Until > nodefile.Uptime()) {
					all = append(all, knownOf(f))
				}
			}
			return errors.Join(errs...)
		})
		a.say("known "+dir, err, "node files that cannot be read", "")
	}
	return all
}

func knownOf(f nodefile.File) overlay.Known {
	o := f.Origin
	k := overlay.Known{Network: f.Network, At: overlay.Moment{
		History: overlay.History{Lineage: o.Lineage, Generation: o.Generation, Cluster: o.Cluster}, Revision: o.Revision,
		Witness: o.Witness, WitnessRevision: o.WitnessRevision,
	}}
	for _, n := range f.Nodes {
		h := overlay.KnownHost{Name: n.Name, Address: n.Address, Blocks: map[netip.Prefix]overlay.Epoch{}}
		for i, b := range n.Blocks {
			if h.Blocks[b] = (overlay.Epoch{}); i < len(n.Epochs) {
				h.Blocks[b] = overlay.Epoch{Generation: n.Epochs[i][0], Revision: n.Epochs[i][1]}
			}
		}
		k.Hosts = append(k.Hosts, h)
	}
	return k
}

// originOf returns the moment that a node file is of. Its revision goes with
// every change of etcd; where nothing of this network has changed, the earlier one
// serves as well, and the file is not written for it.
func originOf(at overlay.Moment, before, now nodefile.File) nodefile.Origin {
	o := nodefile.Origin{
		Lineage: at.Lineage, Generation: at.Generation, Cluster: at.Cluster, Revision: at.Revision, Witness: at.Witness, WitnessRevision: at.WitnessRevision,
	}
	same := o
	same.Revision, same.Witness, same.WitnessRevision = before.Origin.Revision, before.Origin.Witness, before.Origin.WitnessRevision
	if same == before.Origin && reflect.DeepEqual(before.Nodes, now.Nodes) {
		return before.Origin
	}
	return o
}
