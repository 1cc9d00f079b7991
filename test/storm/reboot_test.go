package storm

import (
	"fmt"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// TestReboot fills a pool and its ports, and has the machine start anew: what is
// in the kernel is gone, what is in files is not. All containers of the new
// boot, that come at once, get an address and a port.
func TestReboot(t *testing.T) {
	for name, reboot := range map[string]func(s *storm){
		"records on a disk":  func(*storm) {},
		"records in memory":  func(s *storm) { s.check(os.RemoveAll(stateDir)) },
		"power lost":         (*storm).tear,
		"leases in memory":   func(s *storm) { s.check(os.RemoveAll("/var/lib/cni")) },
		"the boot unchanged": nil, // only the pods are gone
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStorm(t, scale{containers: 0, atOnce: 16})
			before := s.snapshot()
			n := &network{name: "net", room: 13, ports: true, orphans: map[id]int{}, plugins: []plugin{
				{"bridge-ln", true, object{"bridge": "br-net", "gatewayMode": "nat", "ipam": ipam("10.1.0.0/28", "fd01::/64")}},
			}}
			s.nets = []*network{n}
			s.fill(n)
			if reboot != nil {
				s.reboot()
				reboot(s)
			}
			for _, p := range s.pods {
				s.loseNetns(p.netns)
			}
			s.pods, s.atts = nil, nil
			s.fill(n)
			s.inspect(s.pods)
			s.calm()
			if left := s.snapshot(); len(without(left, before))+len(without(before, left)) > 0 {
				t.Errorf("left behind: %q\nmissing: %q", without(left, before), without(before, left))
			}
		})
	}
}

// fill attaches new containers until the pool is full, all at once, and fails
// the test unless all get what they ask for. The ports are always the same.
func (s *storm) fill(n *network) {
	s.t.Helper()
	var adds []*op
	for i := range n.room {
		cid := s.name()
		p := &pod{netns: "pod-" + cid}
		s.newNetns(p.netns)
		a := &attachment{id: id{cid, "eth0"}, net: n, pod: p, asked: []port{{HostPort: 8000 + i, ContainerPort: 80, Protocol: "tcp"}}}
		p.atts = []*attachment{a}
		s.pods, s.atts = append(s.pods, p), append(s.atts, a)
		adds = append(adds, &op{verb: "ADD", net: n, att: a})
	}
	s.all(adds)
	for _, a := range s.atts {
		if a.now != living {
			s.t.Errorf("%s got no address or port", a)
		}
	}
}

// reboot has the kernel forget all of the host, and say that it is another boot.
func (s *storm) reboot() {
	s.t.Helper()
	lntest.Isolate(s.t) // a new host namespace; the files stay
	s.uplink()
	const path = "/run/boot"
	boot := fmt.Sprintf("%08x-0000-4000-8000-000000000000\n", s.rng.Uint32())
	s.check(os.WriteFile(path, []byte(boot), 0o444))
	s.check(unix.Mount(path, "/proc/sys/kernel/random/boot_id", "", unix.MS_BIND, ""))
	if links, err := netlink.LinkList(); err != nil || len(links) != 3 {
		s.t.Fatalf("%d links after the reboot, %v", len(links), err)
	}
}

// tear leaves every second file, of leases and of their index, as a lost power
// supply may: there, and empty.
func (s *storm) tear() {
	s.t.Helper()
	for i, f := range s.allFiles("/var/lib/cni") {
		if i%2 == 0 {
			s.check(os.Truncate(f, 0))
		}
	}
}
