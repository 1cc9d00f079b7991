package agent

import (
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/nodefile"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

// world is hosts of an encrypted network whose registry, devices and handshakes are made up; what
// their agents decide, and their key files, are real.
type world struct {
	t       *testing.T
	rand    *rand.Rand
	hosts   []*simulated
	now     overlay.Shared // what the registry says
	members map[string]overlay.Member
	// sent is when a host sent to another by an epoch last.
	sent map[way]time.Time
}

type way struct {
	from, to string
	epoch    int
}

// simulated is a host.
type simulated struct {
	name    string
	dir     string
	agent   *Agent
	file    nodefile.File
	saw     overlay.Shared
	devices map[int]*device
}

// device is one of WireGuard.
type device struct {
	key   wireguard.Key
	peers map[wireguard.Key]bool // with which a handshake is complete
}

const simulatedNetwork = "net0"

func newWorld(t *testing.T, hosts int, seed uint64) *world {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "libnet-epochs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 0)), members: map[string]overlay.Member{}, sent: map[way]time.Time{}}
	w.now = overlay.Shared{
		Agreed: true, Terms: overlay.Terms{Subnets: []netip.Prefix{netip.MustParsePrefix("10.80.0.0/16")}, Size: overlay.BlockSize{IPv4: 24}, Port: 51000, Encryption: "wireguard"},
		Blocks: map[netip.Prefix]overlay.Holding{}, Keys: map[string]overlay.HostKeys{},
	}
	for i := range hosts {
		h := &simulated{name: fmt.Sprintf("h%d", i), dir: filepath.Join(dir, fmt.Sprintf("h%d", i)), devices: map[int]*device{}}
		w.members[h.name] = overlay.Member{Name: h.name, Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), Live: true, Holds: true}
		w.now.Blocks[netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 80, byte(i), 0}), 24)] = overlay.Holding{Node: h.name}
		w.hosts = append(w.hosts, h)
		w.restart(h)
	}
	for _, h := range w.hosts {
		h.saw = w.now
	}
	return w
}

// restart has the host's agent forget all but files.
func (w *world) restart(h *simulated) {
	h.agent = New(Config{Name: h.name, Address: w.members[h.name].Address, StateDir: h.dir, Registry: noRegistry{}, Log: slog.New(slog.DiscardHandler)})
}

// mend is a turn of the host's mend loop, of which the registry hears later, if at all.
func (w *world) mend(h *simulated) {
	w.t.Helper()
	v := overlay.View{Members: w.members, Networks: map[string]overlay.Shared{simulatedNetwork: h.saw}}
	k := keeper{agent: h.agent, network: netconf.AgentNetwork{Name: simulatedNetwork, StateDir: h.dir}, before: h.file}
	k.secrets = func(_ string, epoch int) (all []wireguard.Peer, err error) {
		if d := h.devices[epoch]; d != nil {
			for key, met := range d.peers {
				all = append(all, wireguard.Peer{PublicKey: key, Handshake: map[bool]int64{true: 1}[met]})
			}
		}
		return all, nil
	}
	hosts, problems := v.Hosts(simulatedNetwork)
	if len(problems) > 0 {
		w.t.Fatal(problems)
	}
	f := k.file(v, hosts, v.Own(simulatedNetwork, h.name))
	own, _, err := k.secure(v, hosts, &f)
	if err != nil {
		w.t.Fatal(err)
	}
	w.program(h, f, own)
	h.file = f
	k.announce(h.saw.Keys[h.name], own, nil)
	if err := (keyStore{h.dir, simulatedNetwork}).keep(f.Epochs...); err != nil {
		w.t.Fatal(err)
	}
}

// program gives the host's kernel what a node file says.
func (w *world) program(h *simulated, f nodefile.File, own overlay.HostKeys) {
	for epoch := range h.devices {
		if !slices.Contains(f.Epochs, epoch) {
			w.mayGo(h, epoch)
			delete(h.devices, epoch)
		}
	}
	for _, epoch := range f.Epochs {
		d := h.devices[epoch]
		if d == nil || d.key != own.Of(epoch).PublicKey {
			d = &device{own.Of(epoch).PublicKey, map[wireguard.Key]bool{}}
			h.devices[epoch] = d
		}
		before := d.peers
		d.peers = map[wireguard.Key]bool{}
		for _, n := range f.Nodes {
			if k := (overlay.HostKeys{Keys: n.Keys}).Of(epoch); n.Name != h.name && k.Epoch != 0 {
				d.peers[k.PublicKey] = before[k.PublicKey]
			}
		}
	}
}

// mayGo wants nothing to be on its way to a device that goes.
func (w *world) mayGo(h *simulated, epoch int) {
	w.t.Helper()
	for way, last := range w.sent {
		if way.to == h.name && way.epoch == epoch && time.Since(last) < retireAfter {
			w.t.Errorf("%s takes its device of epoch %d away %s after %s sent by it", h.name, epoch, time.Since(last), way.from)
		}
	}
}

// announce tells the registry what the host has to say, as announceLoop does.
func (w *world) announce(h *simulated) {
	h.agent.mu.Lock()
	wanted := h.agent.secretOf(simulatedNetwork).wanted
	h.agent.mu.Unlock()
	if told, there := w.now.Keys[h.name]; len(wanted.Keys) > 0 && (!there || !told.Same(wanted)) {
		w.change(func(s *overlay.Shared) { s.Keys[h.name] = wanted })
	}
}

// change changes the registry; what hosts saw stays as it was.
func (w *world) change(fn func(*overlay.Shared)) {
	w.now.Keys = maps.Clone(w.now.Keys)
	fn(&w.now)
}

// meet has two hosts complete a handshake by an epoch, if both know each other's key.
func (w *world) meet(a, b *simulated, epoch int) {
	d, e := a.devices[epoch], b.devices[epoch]
	if d == nil || e == nil {
		return
	}
	_, knows := d.peers[e.key]
	_, known := e.peers[d.key]
	if knows && known {
		d.peers[e.key], e.peers[d.key] = true, true
	}
}

// reaches wants each host's packets to each other to arrive, once there have been any.
func (w *world) reaches(when string) {
	w.t.Helper()
	for _, a := range w.hosts {
		for _, n := range a.file.Nodes {
			b := w.host(n.Name)
			if n.Name == a.name || n.By == 0 {
				continue
			}
			d, e := a.devices[n.By], b.devices[n.By]
			if d == nil || e == nil || !d.peers[e.key] || !e.peers[d.key] {
				w.t.Fatalf("%s: %s sends to %s by epoch %d, and has %v, that one %v", when, a.name, b.name, n.By, d, e)
			}
			w.sent[way{a.name, b.name, n.By}] = time.Now()
		}
	}
}

func (w *world) host(name string) *simulated {
	return w.hosts[slices.IndexFunc(w.hosts, func(h *simulated) bool { return h.name == name })]
}

// event is something that may happen at any time.
func (w *world) event() (what string) {
	w.t.Helper()
	h, o := w.hosts[w.rand.IntN(len(w.hosts))], w.hosts[w.rand.IntN(len(w.hosts))]
	switch w.rand.IntN(12) {
	case 0:
		w.restart(h)
		return h.name + " was killed"
	case 1, 2, 3:
		h.saw = w.now
		return h.name + " saw the registry"
	case 4, 5, 6:
		w.mend(h)
		return h.name + " mended"
	case 7, 8:
		w.announce(h)
		return h.name + " announced"
	case 9, 10:
		for epoch := range h.devices {
			if h != o {
				w.meet(h, o, epoch)
			}
		}
		return h.name + " met " + o.name
	}
	time.Sleep(time.Duration(w.rand.IntN(int(300 * time.Millisecond))))
	return "time passed"
}

// settled says that all hosts have the keys of an epoch only, by the registry.
func (w *world) settled(epoch int) bool {
	hosts, _ := overlay.View{Members: w.members, Networks: map[string]overlay.Shared{simulatedNetwork: w.now}}.Hosts(simulatedNetwork)
	return len(w.now.Unsettled(epoch, hosts)) == 0
}

// A hundred changes of keys, of two hosts up to five: whatever happens in whichever order, with views
// that are old, and agents that are killed, what a host sends arrives, and each change ends.
func TestEpochs(t *testing.T) {
	t.Parallel()
	const patience = 20000 // events
	for hosts, changes := range map[int]int{2: 30, 3: 50, 5: 20} {
		seed := rand.Uint64()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, hosts, seed)
			for _, h := range w.hosts { // the first keys
				w.mend(h)
				w.announce(h)
			}
			for _, h := range w.hosts {
				h.saw = w.now
				w.mend(h)
			}
			for i, a := range w.hosts {
				for _, b := range w.hosts[:i] {
					w.meet(a, b, overlay.FirstEpoch)
				}
			}
			for epoch := overlay.FirstEpoch; epoch <= changes; epoch++ {
				events := 0
				for ; !w.settled(epoch); events++ {
					if events == patience {
						t.Fatalf("seed %d, %d hosts: epoch %d is not settled after %d events: %v", seed, hosts, epoch, events, w.now.Keys)
					}
					w.reaches(fmt.Sprintf("seed %d, %d hosts, epoch %d, %s", seed, hosts, epoch, w.event()))
				}
				w.change(func(s *overlay.Shared) { s.Epoch.Epoch = epoch + 1 })
			}
			for _, h := range w.hosts {
				if len(h.devices) > 2 {
					t.Errorf("%s has %d devices", h.name, len(h.devices))
				}
			}
		})
	}
}
