package integration

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	fw "github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/balance"
)

// Connections of clients outside to a port of the host that leads to one of many services, each of
// which has ten containers: as many clients, each again once it has its answer. Ours and kube-proxy
// keep the client's address. Without is the container itself, and ByHand are rules as kube-proxy's
// nftables mode lays them out, of which the service itself is asked.
func BenchmarkServicesWithout(b *testing.B) { benchServices(b, (*servicesLab).benchWithout, 0) }
func BenchmarkServicesOurs(b *testing.B) {
	benchServices(b, (*servicesLab).benchOurs, 1, 1000, 10000)
}
func BenchmarkServicesKube(b *testing.B) {
	benchServices(b, (*servicesLab).benchKube, 1, 1000, 10000)
}
func BenchmarkServicesByHand(b *testing.B) {
	benchServices(b, (*servicesLab).benchByHand, 1, 1000, 10000)
}

const (
	benchBackends       = 10
	benchServiceClients = 8
)

// balanced is what leads connections to services: at is the port of one of them.
type balanced struct {
	at string
	// make makes services by their numbers, from one to before the other; the one with number 0
	// is at.
	make func(from, to int)
	// together is how many it makes best at once.
	together int
}

// otherService is the address of one of the services.
func otherService(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 100, byte(i >> 8), byte(i)}) }

func benchServices(b *testing.B, prepare func(l *servicesLab) balanced, sizes ...int) {
	l := newServicesLab(b, map[string]any{"gatewayMode": "nat-unprotected"})
	for i := range benchBackends {
		l.add(fmt.Sprint("b", i), "web")
	}
	l.route(netnsPath("world"), "10.60.0.0/24", hostAddr(false).String())
	l.route(netnsPath("world"), "10.100.0.0/16", hostAddr(false).String())
	world, err := os.Open(netnsPath("world"))
	l.check(err)
	defer func() { _ = world.Close() }()
	before := kernelMemory(b)
	of := prepare(l)
	had := 0
	for _, services := range sizes {
		start := time.Now()
		for ; had < services; had = min(had+of.together, services) {
			of.make(had, min(had+of.together, services))
		}
		made := time.Since(start)
		time.Sleep(2 * time.Second) // the kernel resizes its tables
		used := kernelMemory(b) - before
		for range 3 { // other work of the machine comes and goes
			b.Run(fmt.Sprint(services), func(b *testing.B) { // of another thread
				took := connections(b, world, of.at)
				slices.Sort(took.each)
				b.ReportMetric(float64(used), "MiB")
				b.ReportMetric(made.Seconds(), "made-s")
				b.ReportMetric(float64(len(took.each))/took.all.Seconds(), "connections/s")
				b.ReportMetric(float64(took.each[len(took.each)/2].Microseconds()), "p50-us")
				b.ReportMetric(float64(took.each[len(took.each)*99/100].Microseconds()), "p99-us")
			})
		}
	}
}

// durations are of connections: of each, and of all of them.
type durations struct {
	each []time.Duration
	all  time.Duration
}

// connections opens b.N connections out of a network namespace, one after the other by each client.
func connections(b *testing.B, from *os.File, at string) (took durations) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var left atomic.Int64
	left.Store(int64(b.N))
	begin := make(chan struct{})
	for range benchServiceClients {
		wg.Go(func() {
			runtime.LockOSThread() // the thread ends with this
			if err := unix.Setns(int(from.Fd()), unix.CLONE_NEWNET); err != nil {
				b.Error(err)
				return
			}
			<-begin
			for left.Add(-1) >= 0 {
				start := time.Now()
				err := oneConnection(at)
				mu.Lock()
				if err != nil {
					b.Error(err)
				}
				took.each = append(took.each, time.Since(start))
				mu.Unlock()
			}
		})
	}
	b.ResetTimer()
	start := time.Now()
	close(begin)
	wg.Wait()
	took.all = time.Since(start)
	b.StopTimer()
	return took
}

func oneConnection(at string) error {
	c, err := net.DialTimeout("tcp", at, 10*time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = c.Read(make([]byte, 64))
	_ = c.(*net.TCPConn).SetLinger(0) // no port waits
	return err
}

// kernelMemory is what the kernel has for itself and cannot give back, in MiB: rules are of it.
func kernelMemory(b *testing.B) (n int) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		b.Fatal(err)
	}
	for _, kind := range []string{"SUnreclaim:", "VmallocUsed:"} {
		_, rest, _ := strings.Cut(string(text), kind)
		var kib int
		_, _ = fmt.Sscan(rest, &kib)
		n += kib
	}
	return n / 1024
}

func (l *servicesLab) benchWithout() balanced { return balanced{at: "10.60.0.2:8080"} }

// benchOurs makes one service, and puts the elements of the others beside it.
func (l *servicesLab) benchOurs() balanced {
	tables := balance.New()
	l.t.Cleanup(func() { l.check(tables.Close()) })
	return balanced{net.JoinHostPort(hostAddr(false).String(), "8000"), func(from, to int) {
		if from == 0 {
			l.lnctl("service", "create", "web", "--network", "net", "--select", "alias=web", "--port", "80:8080", "--publish", "8000:80")
			from++
		}
		var some []balance.Elem
		for i := from; i < to; i++ {
			p := balance.Port{Addr: otherService(i), Protocol: fw.TCP, Port: 80}
			some = append(some, append(tables.Address(p.Addr, "br-net"), tables.Count(p))...)
			for bucket := range 64 { // as of ten containers: 60 and 4, which are divided once more
				to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 60, 0, byte(2 + bucket%benchBackends)}), 8080)
				if bucket < 60 {
					some = append(some, tables.Bucket(balance.Spread, p, bucket, to))
				}
				some = append(some, tables.Bucket(balance.Rest, p, bucket, to))
			}
		}
		if len(some) > 0 {
			_, err := tables.Apply(context.Background(), some, nil)
			l.check(err)
		}
	}, 250}
}

// benchByHand writes the rules of services. nft is given some at a time: the kernel looks at all of
// a transaction for each of its sets.
func (l *servicesLab) benchByHand() balanced {
	nft := func(rules string) {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			l.t.Fatalf("nft: %v: %.2000s", err, out)
		}
	}
	nft(`table ip kube {
 map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
 chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
 chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
 chain mark-for-masquerade { meta mark set mark or 0x4000; }
}
`)
	return balanced{net.JoinHostPort(otherService(0).String(), "80"), func(from, to int) {
		var w strings.Builder
		for i := from; i < to; i++ {
			var draws []string
			for n := range benchBackends {
				fmt.Fprintf(&w, "add chain ip kube endpoint-%d-%d\n", i, n)
				fmt.Fprintf(&w, "add rule ip kube endpoint-%d-%d ip saddr 10.60.0.%d jump mark-for-masquerade\n", i, n, 2+n)
				fmt.Fprintf(&w, "add rule ip kube endpoint-%d-%d meta l4proto tcp dnat to 10.60.0.%d:8080\n", i, n, 2+n)
				draws = append(draws, fmt.Sprintf("%d : goto endpoint-%d-%d", n, i, n))
			}
			fmt.Fprintf(&w, "add chain ip kube service-%d\nadd rule ip kube service-%[1]d numgen random mod %d vmap { %s }\n", i, benchBackends, strings.Join(draws, ", "))
			fmt.Fprintf(&w, "add element ip kube service-ips { %s . tcp . 80 : goto service-%d }\n", otherService(i), i)
		}
		nft(w.String())
	}, 250}
}
