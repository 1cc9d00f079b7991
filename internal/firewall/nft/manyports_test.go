package nft

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// many is an endpoint with n single ports of both families, as runtimes write a
// range out.
func many(n int) firewall.Endpoint {
	_, e := sample(1)
	e.Hairpin, e.Ports = true, nil
	for i := range n {
		e.Ports = append(e.Ports, firewall.PortMap{Protocol: firewall.UDP, HostPort: uint16(10000 + i), ContainerPort: uint16(10000 + i)})
	}
	return e
}

// BenchmarkManyPorts is one ADD and one DEL; that of ten times as many ports is to
// take ten times as long.
func BenchmarkManyPorts(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		for name, trusted := range map[string][]string{"": nil, "-trusted": {"eth0"}} {
			b.Run(fmt.Sprintf("ports=%d%s", n, name), func(b *testing.B) {
				f := start(b)
				network := firewall.Network{Name: "net", Bridge: "br0", IPv4: firewall.Published, IPv6: firewall.Published, Trusted: trusted}
				e := many(n)
				for b.Loop() {
					mustApply(b, f, network, e)
					mustRemove(b, f, e)
				}
			})
		}
	}
}

// The cost to publish and to remove a container's many ports grows with their
// number. The test compares the processor time of this thread: a loaded
// machine makes it no longer.
func TestManyPortsLinear(t *testing.T) {
	lntest.NeedsRoot(t, "SO_SNDBUFFORCE makes room for a transaction of 10000 ports")
	t.Parallel()
	f := start(t)
	network := firewall.Network{Name: "net", Bridge: "br0", IPv4: firewall.Published, IPv6: firewall.Published, Trusted: []string{"eth0"}}
	cost := func(n int) (add, del time.Duration) {
		e := many(n)
		for range 3 {
			a := lntest.CPUTime(t, unix.RUSAGE_THREAD)
			mustApply(t, f, network, e)
			b := lntest.CPUTime(t, unix.RUSAGE_THREAD)
			mustRemove(t, f, e)
			c := lntest.CPUTime(t, unix.RUSAGE_THREAD)
			if add == 0 || b-a < add {
				add = b - a
			}
			if del == 0 || c-b < del {
				del = c - b
			}
		}
		return add, del
	}
	const factor = 8
	fewAdd, fewDel := cost(2000)
	manyAdd, manyDel := cost(2000 * factor)
	if manyAdd > 3*factor*fewAdd || manyDel > 3*factor*fewDel {
		t.Errorf("%d ports: ADD %v, DEL %v; %d ports: ADD %v, DEL %v", 2000, fewAdd, fewDel, 2000*factor, manyAdd, manyDel)
	}
	t.Logf("ADD %v, %v; DEL %v, %v", fewAdd, manyAdd, fewDel, manyDel)
}
