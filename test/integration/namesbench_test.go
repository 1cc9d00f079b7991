package integration

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/bpf"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/responder"
	"github.com/libnet-cni/libnet/internal/state"
)

// benchContainers have names while BenchmarkNames runs.
const benchContainers = 1000

// The benchmarks have a container ask for names of its network, by one socket or 16 at
// once, of ln-agent and, if the package is installed, of aardvark-dns. A socket asks
// again once it has its answer. They are not parts of one benchmark, as only its own
// goroutine is in the test's host.
//
//	answers/cpu-s  answers for each second of CPU time of the server's process, and of the
//	               program in the kernel
//	machine-us     CPU time of the whole machine for an answer, with the clients'
//	p50-us, p99-us from query to answer
//	MB             resident memory of the server
func BenchmarkNamesAgent1(b *testing.B)     { benchNames(b, 1, (*namesLab).benchAgent) }
func BenchmarkNamesAgent16(b *testing.B)    { benchNames(b, 16, (*namesLab).benchAgent) }
func BenchmarkNamesKernel1(b *testing.B)    { benchNames(b, 1, (*namesLab).benchKernel) }
func BenchmarkNamesKernel16(b *testing.B)   { benchNames(b, 16, (*namesLab).benchKernel) }
func BenchmarkNamesBoth1(b *testing.B)      { benchNames(b, 1, (*namesLab).benchBoth) }
func BenchmarkNamesBoth16(b *testing.B)     { benchNames(b, 16, (*namesLab).benchBoth) }
func BenchmarkNamesAardvark1(b *testing.B)  { benchNames(b, 1, (*namesLab).benchAardvark) }
func BenchmarkNamesAardvark16(b *testing.B) { benchNames(b, 16, (*namesLab).benchAardvark) }

func benchNames(b *testing.B, sockets int, start func(*namesLab, *testing.B) (pid int)) {
	l := newNamesLab(b)
	l.join("web", "front")
	l.load(b, start(l, b), sockets)
}

// benchKernel has no server's process: its pid is 0.
func (l *namesLab) benchKernel(b *testing.B) int {
	l.responder = "bpf"
	l.must(l.call("web", "front", 0).as("DEL"))
	l.join("web", "front")
	r := responder.New(state.New("").Path(), noFilters{})
	for i := range benchContainers {
		id, a := benchContainer(i)
		_, err := r.Put(b.Context(), &responder.Member{
			Owner: id, Network: "front", Container: id, Domain: "libnet.internal", Names: []string{fmt.Sprint("c", i), id[:12]}, Addresses: []netip.Addr{a}, Link: 1000000 + i,
		}, nil)
		l.check(err)
	}
	const statistics = "/proc/sys/kernel/bpf_stats_enabled"
	before, err := os.ReadFile(statistics)
	l.check(err)
	l.check(os.WriteFile(statistics, []byte("1"), 0o600))
	b.Cleanup(func() { l.check(os.WriteFile(statistics, before, 0o600)) })
	return 0
}

// noFilters is for members whose links are not there.
type noFilters struct{}

func (noFilters) Filter(int, int, netlink.Filter) error      { return nil }
func (noFilters) Filtered(int, netlink.Filter) (bool, error) { return true, nil }

// benchBoth has ln-agent beside the kernel.
func (l *namesLab) benchBoth(b *testing.B) int {
	l.benchKernel(b)
	return l.benchAgent(b)
}

// programTime is how long the program in the kernel has run; 0: there is none.
func programTime(b *testing.B) time.Duration {
	pins, err := filepath.Glob("/sys/fs/bpf/libnet/*/respond-*")
	if err != nil || len(pins) == 0 {
		return 0
	}
	fd, err := bpf.Pinned(pins[0])
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	info, err := os.ReadFile(fmt.Sprintf("/proc/thread-self/fdinfo/%d", fd))
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(info), "run_time_ns:")
	ns, err := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return time.Duration(ns)
}

// machineTime is how long the machine's CPUs have not been idle.
func machineTime(b *testing.B) time.Duration {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(strings.SplitN(string(text), "\n", 2)[0])
	total := 0
	for i, f := range fields[1:9] {
		if n, err := strconv.Atoi(f); err == nil && i != 3 && i != 4 && i != 7 { // idle, waiting, stolen
			total += n
		}
	}
	return time.Duration(total) * 10 * time.Millisecond // of USER_HZ
}

// benchContainer returns the ID and address of a container that is not there.
func benchContainer(i int) (string, netip.Addr) {
	return fmt.Sprintf("%064x", i), netip.AddrFrom4([4]byte{10, 70, byte(10 + i>>8), byte(i)})
}

func (l *namesLab) benchAgent(*testing.B) int {
	dir := state.New("")
	for i := range benchContainers {
		id, a := benchContainer(i)
		l.check(dir.SaveEndpoint(state.Endpoint{
			Network: "front", ContainerID: id, IfName: "eth0", Phase: state.PhaseReady, Bridge: "br-other", Addresses: []state.Address{{Prefix: netip.PrefixFrom(a, 16)}},
			Names: &state.Names{Own: []string{fmt.Sprint("c", i), id[:12]}, Domain: "libnet.internal"},
		}))
	}
	l.startAgent("--names-limit", "0")
	l.captured()
	return l.agent.cmd.Process.Pid
}

func (l *namesLab) benchAardvark(b *testing.B) int {
	const program = "/usr/lib/podman/aardvark-dns"
	if _, err := os.Stat(program); err != nil {
		b.Skip(err)
	}
	var lines strings.Builder
	for i := range benchContainers {
		id, a := benchContainer(i)
		_, _ = fmt.Fprintf(&lines, "%s %s  c%d,%s\n", id, a, i, id[:12])
	}
	_, _ = fmt.Fprintf(&lines, "%064x %s  web\n", benchContainers, l.address("web", "front", false))
	conf := b.TempDir()
	l.check(os.WriteFile(filepath.Join(conf, "front"), []byte("10.70.1.1\n"+lines.String()), 0o600))
	cmd := exec.Command(program, "--config", conf, "--port", "53", "run")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	l.check(cmd.Start())
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	l.await("aardvark-dns", func() bool {
		return l.answers(query{from: "web", server: "10.70.1.1", name: "c7", patience: 100 * time.Millisecond}) != "-"
	})
	l.aardvark = filepath.Join(conf, "front")
	pid := cmd.Process.Pid
	if held, err := os.ReadFile(filepath.Join(conf, "aardvark.pid")); err == nil { // it forks
		pid, _ = strconv.Atoi(strings.TrimSpace(string(held)))
		b.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) })
	}
	return pid
}

// load runs the clients. b.N is the number of queries.
func (l *namesLab) load(b *testing.B, pid, sockets int) {
	var conns []net.Conn
	l.in(netnsPath("web"), func() {
		for range sockets {
			c, err := net.Dial("udp", "10.70.1.1:53")
			l.check(err)
			b.Cleanup(func() { _ = c.Close() })
			conns = append(conns, c)
		}
	})
	took := make([]time.Duration, b.N)
	before, machine := cpuTime(b, pid)+programTime(b), machineTime(b)
	b.ResetTimer()
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() {
			for n := i; n < b.N; n += sockets {
				took[n] = once(b, c, n)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	used := cpuTime(b, pid) + programTime(b) - before
	b.ReportMetric(float64((machineTime(b)-machine).Microseconds())/float64(b.N), "machine-us")
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "answers/s")
	if used > 0 {
		b.ReportMetric(float64(b.N)/used.Seconds(), "answers/cpu-s")
	}
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1000, "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1000, "p99-us")
	b.ReportMetric(memory(b, pid), "MB")
}

// once asks for one of the containers, by turns.
func once(b *testing.B, c net.Conn, n int) time.Duration {
	return asked(b, c, fmt.Sprintf("c%d.", n%benchContainers), n)
}

// asked asks for a name, and again if nothing comes.
func asked(b *testing.B, c net.Conn, name string, n int) time.Duration {
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	m.Id = uint16(n)
	wire, err := m.Pack()
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 512)
	start := time.Now()
	for {
		if _, err := c.Write(wire); err != nil {
			b.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		for {
			got, err := c.Read(buf)
			if err != nil {
				break
			}
			if got > 12 && buf[0] == wire[0] && buf[1] == wire[1] {
				if buf[7] == 0 { // ANCOUNT
					b.Fatalf("no answer in %x", buf[:got])
				}
				return time.Since(start)
			}
		}
	}
}

// The benchmarks measure how long it takes from the end of an ADD to the first answer for the
// container's name, among a thousand others; of aardvark-dns, from the signal by which Netavark
// ends that its file has another line.
//
//	first-p50-us, first-p99-us
func BenchmarkNamesFirstAgent(b *testing.B)    { benchFirst(b, (*namesLab).benchAgent) }
func BenchmarkNamesFirstKernel(b *testing.B)   { benchFirst(b, (*namesLab).benchKernel) }
func BenchmarkNamesFirstAardvark(b *testing.B) { benchFirst(b, (*namesLab).benchAardvark) }

func benchFirst(b *testing.B, start func(*namesLab, *testing.B) (pid int)) {
	l := newNamesLab(b)
	l.join("web", "front")
	pid := start(l, b)
	l.netns("new")
	var c net.Conn
	l.in(netnsPath("web"), func() {
		var err error
		c, err = net.Dial("udp", "10.70.1.1:53")
		l.check(err)
	})
	b.Cleanup(func() { _ = c.Close() })
	var took []time.Duration
	for n := range b.N {
		name := fmt.Sprint("new", n)
		if l.aardvark != "" {
			f, err := os.OpenFile(l.aardvark, os.O_APPEND|os.O_WRONLY, 0)
			l.check(err)
			_, err = fmt.Fprintf(f, "%064x 10.70.1.250  %s\n", 1000000+n, name)
			l.check(err)
			l.check(f.Close())
			l.check(unix.Kill(pid, unix.SIGHUP))
			took = append(took, first(b, c, name))
			continue
		}
		add := l.call("new", "front", 0)
		add.args = "NAME=" + name
		l.must(add.as("ADD"))
		took = append(took, first(b, c, name))
		l.must(add.as("DEL"))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1000, "first-p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1000, "first-p99-us")
}

// first asks for a name until it is there.
func first(b *testing.B, c net.Conn, name string) time.Duration {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), dns.TypeA)
	wire, err := m.Pack()
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 512)
	for start := time.Now(); ; {
		if time.Since(start) > lntest.WaitForAnswer {
			b.Fatalf("%s is not there", name)
		}
		if _, err := c.Write(wire); err != nil {
			continue // of a server that is not there
		}
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		got, err := c.Read(buf)
		if err == nil && got > 12 && buf[0] == wire[0] && buf[1] == wire[1] && buf[7] > 0 { // ANCOUNT
			return time.Since(start)
		}
	}
}

// cpuTime of a process so far, user and system, of all its threads; 0: of none.
func cpuTime(b *testing.B, pid int) time.Duration {
	if pid == 0 {
		return 0
	}
	const scheduled = 2 // CPUCLOCK_SCHED (linux/posix-timers.h): in nanoseconds
	var at unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &at); err != nil {
		b.Fatal(err)
	}
	return time.Duration(at.Nano())
}

// memory of a process, resident, in MB.
func memory(b *testing.B, pid int) float64 {
	if pid == 0 {
		return 0
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		b.Fatal(err)
	}
	pages, _ := strconv.Atoi(strings.Fields(string(text))[1])
	return float64(pages*os.Getpagesize()) / 1e6
}

// The benchmark measures the time that the capture adds to a query for a foreign name: web is on
// a network with names, bare on one without. They ask the server outside in turn.
//
//	added-p50-us   how much longer web waits, at the median, and so on
//	foreign-p50-us how long web waits
func BenchmarkNamesForeign(b *testing.B) {
	l := newNamesLab(b)
	l.join("web", "front")
	l.join("bare", "plain")
	l.startAgent("--names-limit", "0")
	l.captured()
	took := map[string][]time.Duration{}
	conns := map[string]net.Conn{}
	for _, name := range []string{"web", "bare"} {
		l.in(netnsPath(name), func() {
			c, err := net.Dial("udp", net.JoinHostPort(worldAddr(false).String(), "53"))
			l.check(err)
			b.Cleanup(func() { _ = c.Close() })
			conns[name] = c
		})
	}
	b.ResetTimer()
	for n := range b.N {
		for name, c := range conns { // in no order
			took[name] = append(took[name], asked(b, c, "outside.test.", n))
		}
	}
	b.StopTimer()
	for _, all := range took {
		slices.Sort(all)
	}
	for what, at := range map[string]int{"p50": b.N / 2, "p99": b.N * 99 / 100} {
		b.ReportMetric(float64((took["web"][at]-took["bare"][at]).Nanoseconds())/1000, "added-"+what+"-us")
		b.ReportMetric(float64(took["web"][at].Nanoseconds())/1000, "foreign-"+what+"-us")
	}
}
