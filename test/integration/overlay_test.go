package integration

import (
	"fmt"
	"testing"
)

// Every pair of 3 hosts and 2 networks, by both families: containers
// reach each other if they share a network, and only then.
func TestOverlayReach(t *testing.T) {
	for _, is6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("underlay6=%t", is6), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 3, 1500, is6)
			var all []container
			for _, host := range c.hosts {
				for net := range 2 {
					all = append(all, c.add(net, host, nil))
				}
			}
			for _, from := range all {
				for _, to := range all {
					for _, a := range to.addresses {
						if from.net == to.net {
							c.ping(from.netns, a)
						} else {
							c.noPing(from.netns, a)
						}
					}
				}
			}
			for _, host := range c.hosts { // hosts reach all, for probes
				for _, to := range all {
					for _, a := range to.addresses {
						c.ping(netnsPath(host), a)
					}
				}
			}
			for _, p := range all {
				check := p.call.as("CHECK")
				r := c.mustOn(p.host, p.call.as("ADD"))
				check.stdin = edit(t, check.stdin, map[string]any{"prevResult": decode(t, r.stdout)})
				c.mustOn(p.host, check)
			}
		})
	}
}
