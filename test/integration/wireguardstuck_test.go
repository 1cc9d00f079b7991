package integration

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// blockPort drops what goes from a host to a UDP port of any other, and to its own, as a filter on the
// underlay would.
func (r *rotating) blockPort(host string, port int) {
	r.agents.t.Helper()
	for i, h := range r.agents.hosts {
		only := ""
		if h != host {
			only = fmt.Sprintf("ip saddr %s", r.agents.address(slices.Index(r.agents.hosts, host)))
		}
		r.agents.in(netnsPath(h), func() {
			cmd := exec.Command("nft", "-f", "-")
			cmd.Stdin = strings.NewReader(fmt.Sprintf(
				"table inet underlay { chain in { type filter hook prerouting priority -500; %s udp dport %d drop; }; }", only, port))
			if out, err := cmd.CombinedOutput(); err != nil {
				r.agents.t.Fatalf("nft on host %d: %v, %s", i, err, out)
			}
		})
	}
}

// epochOf is the epoch of keys that a host has, by its metrics.
func (r *rotating) epochOf(host string) int {
	r.agents.t.Helper()
	body, _ := r.get(host, "/metrics")
	return int(metric(body, `libnet_agent_key_epoch{network="net0"}`))
}

// Of three hosts with sessions two lose each other by the port in use, while packets are sent. The
// agents see it by what is sent and never answered, make the peers anew, and then change the keys:
// the next device has another port, so pings come back while the old port is blocked still.
// Nothing passes in clear, and the third host loses nothing.
func TestWireGuardStuckPeer(t *testing.T) {
	t.Parallel()
	const after = 10 * time.Second
	r := newRotating(t, 3, "--heal-after", after.String(), "--log-level", "debug")
	all := r.containers()
	r.pingAll(all...)
	c := r.capture()
	r.echo(all[0])
	r.echo(all[1])
	well := r.pinger(all[0], all[1].addresses[0])
	epoch := r.epochOf("h1")
	start := time.Now()
	r.blockPort("h3", securePort+1-epoch%2)
	cut := r.pinger(all[2], all[0].addresses[0]) // of the two h3 begins handshakes, and peers anew
	r.await("next epoch", func() bool { return r.epochOf("h1") > epoch })
	began := time.Since(start)
	r.await("pings again", func() bool { return answered(cut) })
	r.await("way to h3", func() bool {
		return r.reaches(all[0], all[2]) && r.reaches(all[2], all[0]) && r.reaches(all[1], all[2])
	})
	t.Logf("keys changed %s after the port was blocked, and the way was open after %s", began, time.Since(start))
	close(cut.stop)
	for _, h := range r.agents.hosts {
		r.awaitPeers(h, 2)
		if got := r.epochOf(h); got != epoch+1 {
			t.Errorf("%s has epoch %d, want %d", h, got, epoch+1)
		}
	}
	r.pingAll(all...)
	if lost, sent := well.lost(); len(lost) > 0 {
		t.Errorf("%d of %d pings between the other hosts were lost", len(lost), sent)
	}
	if got := c.sealed("stuck"); got.all == 0 {
		t.Error("the capture saw nothing")
	}
	var log strings.Builder
	for _, h := range r.agents.hosts {
		log.WriteString(r.agents.procs[h].log.String())
	}
	for _, want := range []string{"peer is made anew", "keys change, as a host is out of reach"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no agent logs %q", want)
		}
	}
}

// answered says that any ping has come back.
func answered(p *pinger) (yes bool) {
	p.got.Range(func(any, any) bool { yes = true; return false })
	return yes
}
