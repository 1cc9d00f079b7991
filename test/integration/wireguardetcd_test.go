package integration

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Etcd stands still while keys change, at another moment each time, for longer than the hosts'
// leases live: the change waits, no packet is lost, nothing leaves in clear, and once etcd goes on,
// the change comes to its end on all hosts.
func TestWireGuardEtcdAway(t *testing.T) {
	t.Parallel()
	r := newRotating(t, 3, "--live-ttl", "3s")
	all := r.containers()
	r.pingAll(all...)
	c := r.capture()
	var pingers []*pinger
	for i := range all {
		r.echo(all[i])
	}
	for i := range all {
		pingers = append(pingers, r.pinger(all[i], all[(i+1)%len(all)].addresses[i%2]))
	}
	for i := range 3 {
		epoch := r.epochOf("h1")
		cmd := r.rotateCommand(r.agents.hosts[i])
		r.agents.check(cmd.Start())
		time.Sleep(rand.N(400 * time.Millisecond)) // etcd stops in the middle of it, or before
		r.etcd.Pause()
		for _, h := range r.agents.hosts {
			r.awaitHealth(h, "etcd:")
		}
		r.etcd.Resume()
		if err := cmd.Wait(); err != nil { // etcd was away before it could be asked: nothing has begun, or it goes on
			t.Logf("%d: rotate-keys: %v", i, err)
			for _, h := range r.agents.hosts {
				r.awaitHealth(h, "ok") // in touch with etcd again
				r.awaitPeers(h, 2)
			}
			if r.epochOf("h1") == epoch {
				r.rotate("h1")
			}
		}
		for _, h := range r.agents.hosts {
			r.await("next epoch on "+h, func() bool { return r.epochOf(h) > epoch && len(r.devices(h)) == 1 && len(r.privateKeys(h)) == 1 })
			r.awaitPeers(h, 2)
		}
		c.sealed("etcd was away")
	}
	for i, p := range pingers {
		if lost, sent := p.lost(); len(lost) > 0 {
			t.Errorf("pings of %s: %d of %d lost", all[i].host, len(lost), sent)
		}
	}
	r.pingAll(all...)
}
