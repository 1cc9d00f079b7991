package mesh

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/overlay"
)

// The crowd of TestServiceChangeToMany has so many services of so many containers; the changes are
// made one after the other, and each is awaited on all hosts.
const crowdServices, crowdBackends, crowdChanges = 50, 10, 60

// One change of a service comes to many hosts soon: the times are in the log, 100 ms are wanted.
// LIBNET_HOSTS says how many hosts there are; they and etcd share the cores of this machine. One of
// them has a kernel that it brings to the change. While changes are measured this process, which
// stands for many machines, does not collect garbage: each machine has some MiB of its own. Changes
// during which the kernel monitored the pages of this machine are counted apart.
func TestServiceChangeToMany(t *testing.T) {
	hosts := 300
	if many := os.Getenv("LIBNET_HOSTS"); many != "" {
		hosts, _ = strconv.Atoi(many)
	}
	c := newCrowd(t, hosts+crowdServices)
	writer := c.populate(hosts)
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var all, last, alone, kernel []time.Duration
	monitors := monitorsOfPages(t)
	var cpu, etcdCPU time.Duration
	for i := range crowdChanges {
		if i%10 == 0 {
			runtime.GC()
		}
		one, there := backendOf(i/2%crowdServices, crowdBackends), i%2 == 0
		monitored := ranFor(t, monitors)
		start, before, etcdBefore := time.Now(), lntest.CPUTime(t, unix.RUSAGE_SELF), c.etcd.CPUTime()
		if there {
			writer.set(one)
		} else {
			writer.set(gone(one))
		}
		took := c.await(serviceOf(i/2%crowdServices), one.Container, there, hosts, start)
		cpu, etcdCPU = cpu+lntest.CPUTime(t, unix.RUSAGE_SELF)-before, etcdCPU+c.etcd.CPUTime()-etcdBefore
		slowest := time.Duration(0)
		for host, d := range took {
			if all, slowest = append(all, d), max(slowest, d); host == hostOf(0) {
				kernel = append(kernel, d)
			}
		}
		if last = append(last, slowest); ranFor(t, monitors)-monitored < time.Millisecond {
			alone = append(alone, slowest)
		}
	}
	for _, durations := range [][]time.Duration{all, last, alone, kernel} {
		slices.Sort(durations)
	}
	per := time.Duration(crowdChanges * hosts)
	var mem runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&mem)
	t.Logf("%d changes on each of %d hosts: p50 %s, p99 %s, max %s; all hosts after p50 %s, max %s; the one with a kernel p50 %s, max %s",
		crowdChanges, hosts, mid(all), all[len(all)*99/100], all[len(all)-1], mid(last), last[len(last)-1], mid(kernel), kernel[len(kernel)-1])
	t.Logf("of CPU for each host %s, and %s of etcd, on %d cores; %d KiB of heap for each; sessions that ended: %v",
		cpu/per, etcdCPU/per, runtime.NumCPU(), int(mem.HeapInuse)/hosts>>10, c.endings())
	if len(alone) > 0 {
		t.Logf("%d of the changes while the kernel did not monitor pages: all hosts after p50 %s, max %s", len(alone), mid(alone), alone[len(alone)-1])
	}
	if mid(last) > 5*time.Second { // a poll, not an event
		t.Errorf("%s", last)
	}
}

// monitorsOfPages are the files that say how long the kernel's threads have run that find out which
// pages are in use (DAMON), if it has any. Meanwhile all else on this machine waits for page tables.
func monitorsOfPages(t *testing.T) (files []string) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if comm, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(comm), "kdamond.") {
			files = append(files, filepath.Join(filepath.Dir(name), "schedstat"))
		}
	}
	return files
}

func ranFor(t *testing.T, files []string) (sum time.Duration) {
	t.Helper()
	for _, file := range files {
		data, err := os.ReadFile(file)
		var ran time.Duration
		if _, scanErr := fmt.Sscan(string(data), &ran); err != nil || scanErr != nil {
			t.Fatal(file, err, scanErr)
		}
		sum += ran
	}
	return sum
}

func mid(sorted []time.Duration) time.Duration { return sorted[len(sorted)/2] }

func serviceOf(i int) string { return fmt.Sprint("web", i) }

// backendOf is a container of a service, on the host that makes the changes.
func backendOf(service, i int) overlay.Named {
	return far("", fmt.Sprintf("c%d-%d", service, i), fmt.Sprint("shop", service), fmt.Sprintf("10.1.%d.%d", service, i+1))
}

// populate has hosts join that have a block each, and know all services. It returns the host that
// changes their containers.
func (c *crowd) populate(hosts int) *told {
	c.t.Helper()
	defs := map[string]string{}
	for i := range crowdServices {
		defs["services/net1/"+serviceOf(i)] = fmt.Sprintf(`{"name":%q,"select":"shop%d","vips":["10.9.0.%d"],"ports":["80:8080/tcp"],"affinity":"none"}`, serviceOf(i), i, i+1)
	}
	c.write(defs)
	writer := c.join("h1", netip.MustParseAddr("192.0.2.1"), c.t.TempDir(), func(*Mesh) { <-c.ctx.Done() })
	for i := range crowdServices {
		for j := range crowdBackends {
			writer.set(backendOf(i, j))
		}
	}
	dir := c.t.TempDir()
	if _, err := c.open.services(dir); err != nil {
		c.t.Fatal(err)
	}
	begun, blocks := time.Now(), map[string]string{}
	for i := range hosts {
		c.announce(hostOf(i), addressOf(i))
		blocks[fmt.Sprintf("networks/net1/blocks/10.%d.%d.0/24", 20+i>>8, i&255)] = fmt.Sprintf(`{"node":%q}`, hostOf(i))
	}
	const together = 25 // they all share the cores of this machine
	last := backendOf(crowdServices-1, crowdBackends-1)
	for i := range hosts {
		decide, at := c.decide, dir
		if i == 0 {
			decide, at = c.program, c.t.TempDir()
		}
		c.join(hostOf(i), addressOf(i), at, decide)
		if (i+1)%together == 0 || i+1 == hosts {
			c.await(serviceOf(crowdServices-1), last.Container, true, i%together+1, begun)
		}
	}
	c.write(blocks)
	c.awaitView("blocks", hosts+1, func(v overlay.View) bool { return len(v.Networks["net1"].Blocks) == hosts })
	c.t.Logf("%d hosts joined in %s", hosts, time.Since(begun).Round(time.Millisecond))
	return writer
}

func hostOf(i int) string { return fmt.Sprint("w", i) }

func addressOf(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}) }
