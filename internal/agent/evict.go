package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/nodefile"
	"github.com/libnet-cni/libnet/internal/overlay"
)

// errEvicted is the state of a host that is to have no part in any network.
var errEvicted = errors.New("this node was evicted")

// evict has all hosts leave a host out of all networks, or takes that back.
func (a *Agent) evict(ctx context.Context, do, node string) error {
	a.mu.Lock()
	v, apart := a.view, a.apart
	a.mu.Unlock()
	switch {
	case apart != nil:
		return apart
	case v == nil:
		return a.starting()
	}
	by, is := v.Evicted[node]
	_, known := v.Members[node]
	switch {
	case do == "admit" && is:
		return a.conf.Keys.Admit(ctx, node)
	case do == "admit":
		return fmt.Errorf("node %q is not evicted; those that are: %s", node, list(slices.Sorted(maps.Keys(v.Evicted))))
	case is:
		return fmt.Errorf("node %q is evicted already, by %s", node, by)
	case node == a.conf.Name:
		return fmt.Errorf("node %q is this host: see ln-agent leave", node)
	case !known:
		return fmt.Errorf("there is no node %q; there are: %s", node, list(slices.Sorted(maps.Keys(v.Members))))
	}
	a.log.Warn("node is evicted", "evicted", node)
	return a.conf.Keys.Evict(ctx, node)
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// withdrawEvicted has the tunnel lead nowhere, and no ADD give an address. What belongs to the
// network stays unreachable where it is encrypted.
func (k keeper) withdrawEvicted(ctx context.Context, by string) error {
	said := fmt.Errorf("%w, by %s: nothing of the network gets in or out; see lnctl overlay admit, on another host", errEvicted, by)
	if len(k.before.Nodes) == 0 {
		return said
	}
	f := k.before
	f.Nodes = slices.DeleteFunc(slices.Clone(f.Nodes), func(n nodefile.Node) bool { return n.Name != k.agent.conf.Name })
	net, err := k.define(f)
	if err == nil {
		_, err = net.Connect(ctx)
	}
	if err = errors.Join(err, k.withoutReturns(ctx)); err == nil { // else the next try needs the file
		err = k.controller.DeleteNodeFile(f.Network)
	}
	return errors.Join(said, err)
}

// isEvicted says that this host is, and by which.
func (k keeper) isEvicted(v overlay.View) (by string, is bool) {
	by, is = v.Evicted[k.agent.conf.Name]
	return by, is
}
