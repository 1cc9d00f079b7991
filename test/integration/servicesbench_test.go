package integration

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	fw "github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/balance"
)

// Connections of clients outside to one of many services, each of which has ten containers: as
// many clients, each again once it has its answer. Kube are rules as kube-proxy's nftables mode
// lays them out, by hand: one map of services to chains, a chain for each service, which draws a
// backend, and one for each backend. Without is the container itself. Of 10 000 such services nft
// does not write the rules within four minutes.
func BenchmarkServicesWithout(b *testing.B)   { benchServices(b, 0, (*servicesLab).benchWithout) }
func BenchmarkServicesOurs1(b *testing.B)     { benchServices(b, 1, (*servicesLab).benchOurs) }
func BenchmarkServicesOurs10000(b *testing.B) { benchServices(b, 10000, (*servicesLab).benchOurs) }
func BenchmarkServicesKube1(b *testing.B)     { benchServices(b, 1, (*servicesLab).benchKube) }
func BenchmarkServicesOurs1000(b *testing.B)  { benchServices(b, 1000, (*servicesLab).benchOurs) }
func BenchmarkServicesKube1000(b *testing.B)  { benchServices(b, 1000, (*servicesLab).benchKube) }

const (
	benchBackends       = 10
	benchServiceClients = 8
)

// otherService is the address of one of the services.
func otherService(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 100, byte(i >> 8), byte(i)}) }

func benchServices(b *testing.B, services int, prepare func(l *servicesLab, services int) (at string)) {
	l := newServicesLab(b, map[string]any{"gatewayMode": "nat-unprotected"})
	for i := range benchBackends {
		l.add(fmt.Sprint("b", i), "web")
	}
	l.route(netnsPath("world"), "10.60.0.0/24", hostAddr(false).String())
	l.route(netnsPath("world"), "10.100.0.0/16", hostAddr(false).String())
	before := memoryAvailable(b)
	at := prepare(l, services)
	time.Sleep(2 * time.Second) // the kernel resizes its tables
	used := before - memoryAvailable(b)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var left atomic.Int64
	left.Store(int64(b.N))
	var took []time.Duration
	begin := make(chan struct{})
	l.start(&wg, "world", benchServiceClients, func(int) {
		<-begin
		for left.Add(-1) >= 0 {
			start := time.Now()
			err := oneConnection(at)
			mu.Lock()
			if err != nil {
				b.Error(err)
			}
			took = append(took, time.Since(start))
			mu.Unlock()
		}
	})
	b.ResetTimer()
	start := time.Now()
	close(begin)
	wg.Wait()
	all := time.Since(start)
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(used), "MiB")
	b.ReportMetric(float64(len(took))/all.Seconds(), "connections/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
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

// memoryAvailable is the memory of the machine that is free, in MiB.
func memoryAvailable(b *testing.B) int {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "MemAvailable:")
	var n int
	_, _ = fmt.Sscan(rest, &n)
	return n / 1024
}

func (l *servicesLab) benchWithout(int) string { return "10.60.0.2:8080" }

// benchOurs makes one service, and puts the elements of the others beside it.
func (l *servicesLab) benchOurs(services int) string {
	l.lnctl("service", "create", "web", "--network", "net", "--select", "alias=web", "--port", "80:8080", "--publish", "8000:80")
	tables := balance.New()
	defer func() { l.check(tables.Close()) }()
	for at := 1; at < services; at += 100 {
		var some []balance.Elem
		for i := at; i < min(at+100, services); i++ {
			p := balance.Port{Addr: otherService(i), Protocol: fw.TCP, Port: 80}
			some = append(some, append(tables.Address(p.Addr, "br-net"), tables.Count(p))...)
			for bucket := range 64 {
				to := netip.AddrFrom4([4]byte{10, 60, 0, byte(2 + bucket%benchBackends)})
				some = append(some, tables.Bucket(balance.Spread, p, bucket, netip.AddrPortFrom(to, 8080)))
			}
		}
		_, err := tables.Apply(context.Background(), some, nil)
		l.check(err)
	}
	return net.JoinHostPort(hostAddr(false).String(), "8000")
}

// benchKube writes the rules of services, ours is the first.
func (l *servicesLab) benchKube(services int) string {
	var w strings.Builder
	w.WriteString(`table ip kube {
 map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
 chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
 chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
 chain mark-for-masquerade { meta mark set mark or 0x4000; }
}
`)
	for i := range services {
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
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(w.String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		l.t.Fatalf("nft: %v: %.2000s", err, out)
	}
	return net.JoinHostPort(otherService(0).String(), "80")
}
