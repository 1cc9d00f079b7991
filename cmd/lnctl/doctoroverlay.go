package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/libnet-cni/libnet/internal/operator"
)

// doctorWait is how long doctor waits for the hosts of a network, and as long
// again where some are silent.
const doctorWait = 500 * time.Millisecond

// overlayFindings asks the hosts of networks that span hosts, through the tunnel,
// whether as large packets as it takes arrive: with hosts of different MTU the
// one that has the larger one loses them without a word. A host that is silent
// is nothing to find here: its network may not be there yet.
func overlayFindings(ctx context.Context, c *operator.Operator) []finding {
	networks, _ := c.SpanningNetworks(ctx) // what cannot be read other findings tell
	var all []finding
	for _, n := range networks {
		peers, err := c.CheckPeers(ctx, n, doctorWait)
		if err != nil || peers.MTU == 0 {
			continue
		}
		f := finding{About: "overlay MTU", OK: true, Found: fmt.Sprintf("%s: no host is known to take less than %d bytes", n.Name(), peers.MTU)}
		for _, p := range peers.Peers {
			if largest, small := smallest(p); small {
				f = finding{About: f.About, Found: fmt.Sprintf("%s: of the tunnel's %d bytes %d reach %s", n.Name(), peers.MTU, largest, p.Address), Advice: strings.Join(p.Advice, "; ")}
				break
			}
		}
		all = append(all, f)
	}
	return all
}

// smallest returns the largest packet that comes back from a peer by the way
// that takes least; false if all take full ones, or nothing is known.
func smallest(p operator.Peer) (bytes int, small bool) {
	for _, w := range p.Ways {
		if w.Largest > 0 && (!small || w.Largest < bytes) {
			bytes, small = w.Largest, true
		}
	}
	return bytes, small
}
