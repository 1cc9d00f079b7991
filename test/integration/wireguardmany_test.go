package integration

import (
	"context"
	"crypto/ecdh"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

// TestWireGuardMany has an agent start among a thousand hosts of an encrypted network, and change
// its keys with them.
func TestWireGuardMany(t *testing.T) {
	got := measureSecureMany(t)
	t.Logf("%+v", got)
	if got.memory > memoryBound {
		t.Errorf("%d peers: %d bytes of memory, want %d", manyPeers, got.memory, memoryBound)
	}
}

// BenchmarkWireGuardMany tells how long it takes: make bench BENCH=wireguard.
func BenchmarkWireGuardMany(b *testing.B) {
	var all secureFigures
	n := 0
	for range b.N {
		m := measureSecureMany(b)
		all.cold += m.cold
		all.changed += m.changed
		all.memory, all.userspace = max(all.memory, m.memory), max(all.userspace, m.userspace)
		n++
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(all.cold.Seconds()*1000/float64(n), "ms-cold")
	b.ReportMetric(all.changed.Seconds()*1000/float64(n), "ms-changed")
	b.ReportMetric(float64(all.memory)/(1<<20), "MiB-agent")
	b.ReportMetric(float64(all.userspace)/(1<<20), "MiB-wireguard-go")
}

type secureFigures struct {
	cold time.Duration // until all are peers, with routes
	// changed is how long after the last host announced its new key all are peers of the second
	// device, too.
	changed           time.Duration
	memory, userspace int // the most that the agent, and wireguard-go, have had, in bytes
}

func measureSecureMany(t testing.TB) (m secureFigures) {
	t.Helper()
	r := newRotatingIdle(t, 1)
	keys := merge(r.keys, map[string]any{"subnet": []string{"10.80.0.0/12", "fd80::/48"}})
	r.agents.configure(0, "h1", keys)
	c := r.client()
	r.start("h1")
	r.awaitPeers("h1", 0)
	for i := range manyPeers {
		r.invent(c, i)
	}
	r.announce(c, 1)
	r.agents.procs["h1"].stop(t)
	start := time.Now()
	r.start("h1")
	r.awaitPeers("h1", manyPeers)
	m.cold = time.Since(start)
	first := r.devices("h1")[0]
	_, err := c.Put(context.Background(), "/libnet/v1/networks/net0/epoch", `{"epoch":2,"by":"n0000"}`)
	r.agents.check(err)
	r.announce(c, 1, 2)
	start = time.Now()
	d := wireguard.Device{}
	r.await("second device", func() bool { return len(r.devices("h1")) == 2 })
	for _, name := range r.devices("h1") {
		if name != first {
			d.Name = name
		}
	}
	if !r.kernel {
		d.Socket = wireguard.SocketPath("/run/libnet-h1", d.Name)
	}
	r.await("peers of the second device", func() (all bool) {
		r.agents.in(netnsPath("h1"), func() {
			s, err := d.Read()
			all = err == nil && len(s.Peers) == manyPeers
		})
		return all
	})
	m.changed = time.Since(start)
	m.memory = r.memory("h1")
	if !r.kernel {
		m.userspace = r.memoryOf(r.secure.procs["h1"].cmd.Process.Pid)
	}
	return m
}

// announce writes keys of the made-up hosts.
func (r *rotating) announce(c *clientv3.Client, epochs ...int) {
	r.agents.t.Helper()
	for i := range manyPeers {
		var all []overlay.EpochKey
		for _, epoch := range epochs {
			key, err := ecdh.X25519().NewPrivateKey(append(binary.BigEndian.AppendUint32(nil, uint32(i)), append(make([]byte, 27), byte(epoch))...))
			r.agents.check(err)
			all = append(all, overlay.EpochKey{Epoch: epoch, PublicKey: wireguard.Key(key.PublicKey().Bytes()), Port: securePort})
		}
		data, err := json.Marshal(map[string]any{"keys": all, "sends": epochs[0]})
		r.agents.check(err)
		_, err = c.Put(context.Background(), fmt.Sprintf("/libnet/v1/networks/net0/keys/n%04d", i), string(data))
		r.agents.check(err)
	}
}
