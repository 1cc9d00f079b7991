package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// A held address has its container, dead ones say why, and the use is counted.
func TestIPAM(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.populate()
	golden(t, "ipam-ls.txt", l.lnctl(0, "ipam", "ls"))
	golden(t, "ipam-status.txt", l.lnctl(0, "ipam", "status", "web"))
	if got := l.lnctl(0, "ipam", "ls", "web", "-o", "wide"); !strings.Contains(got, "WORKLOAD") || !strings.Contains(got, "T") {
		t.Errorf("wide: %s", got)
	}
	if got := l.lnctl(exitProblem, "ipam", "ls", "none"); got != "lnctl: network \"none\": not found\n" {
		t.Errorf("a missing network: %s", got)
	}
}

// An address that was released is listed until it may be given again, and does not hide that the
// next container got another one.
func TestCooling(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	pool, err := address.NewPool(ipamstore.Config{
		Network: "web", Cooldown: time.Hour, Strategy: ipamstore.StrategyLowest, Sets: []ipamstore.RangeSet{{{Subnet: netip.MustParsePrefix("10.32.0.0/24")}}},
	}, model.Addressing{})
	l.must(err)
	web, err := l.c.NewNetwork(t.Context(), "bridge", "web", engine.WithConfig(natMode("ln0")), engine.WithIPAM(pool))
	l.must(err)
	l.attach(web, "c1")
	l.attach(web, "c2")
	released := time.Now()
	l.must(web.Remove(t.Context(), model.ID{Network: "web", ContainerID: "c2", IfName: "eth0"}))
	l.attach(web, "c3")
	out := l.lnctl(0, "ipam", "ls", "web")
	if !strings.Contains(out, "cooling: not given again before ") || strings.Count(out, "10.32.0.3 ") != 1 || !strings.Contains(out, "10.32.0.4 ") {
		t.Errorf("want 10.32.0.3 cooling, and 10.32.0.4 given:\n%s", out)
	}
	var all []lease
	if err := json.Unmarshal([]byte(l.lnctl(0, "ipam", "ls", "-o", "json")), &all); err != nil || len(all) != 3 {
		t.Fatalf("%v: %+v", err, all)
	}
	last := all[2]
	if last.State != "cooling" || last.Address != "10.32.0.3" || last.Until == nil || last.Until.Before(released.Add(time.Hour)) || last.Since == nil || last.Since.Before(released) {
		t.Errorf("%+v, want one that is free an hour after %s", last, released)
	}
	if out := l.lnctl(0, "ipam", "status", "web"); !strings.Contains(out, "COOLING") || strings.Join(strings.Fields(out)[10:14], " ") != "2 1 250 253" {
		t.Errorf("status:\n%s", out)
	}
	if out := l.lnctl(exitProblem, "ipam", "release", "web", "10.32.0.3"); !strings.Contains(out, "10.32.0.3 is not held") {
		t.Errorf("release: %s", out)
	}
}

// The address of a dead container is released with its links and rules; a living one's is
// not; a lease of which no record tells is released by force only.
func TestRelease(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.populate()
	if got := l.lnctl(exitProblem, "ipam", "release", "web", "10.32.0.2", "--force"); !strings.Contains(got, "c1 eth0, an attachment of network") {
		t.Errorf("of a living container: %s", got)
	}
	if got := l.lnctl(0, "ipam", "release", "web", "10.32.0.3"); got != "released 10.32.0.3 of c4 eth0\nreleased fd32::3 of c4 eth0\n" {
		t.Errorf("of a dead one: %s", got)
	}
	if got := l.lnctl(0, "endpoint", "ls", "web"); strings.Contains(got, "c4") {
		t.Errorf("the dead one stays: %s", got)
	}
	l.must(os.WriteFile("/var/lib/cni/networks/web/10.32.0.77", []byte("lost1\r\neth0"), 0o600))
	if got := l.lnctl(exitProblem, "ipam", "release", "web", "10.32.0.77"); !strings.Contains(got, "--force") {
		t.Errorf("without a record: %s", got)
	}
	l.lnctl(0, "ipam", "release", "web", "10.32.0.77", "--force")
	if got := l.lnctl(exitProblem, "ipam", "release", "web", "10.32.0.77"); !strings.Contains(got, "10.32.0.77 is not held") {
		t.Errorf("again: %s", got)
	}
	l.lnctl(exitUsage, "ipam", "release", "web", "x")
	l.failing()
}

// Attachments are listed, and one whose link has lost its address is named by inspect and
// check.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.populate()
	golden(t, "endpoint-ls.txt", l.lnctl(0, "endpoint", "ls"))
	golden(t, "endpoint-inspect.txt", l.lnctl(0, "endpoint", "inspect", "c1"))
	if got := l.lnctl(exitProblem, "endpoint", "inspect", "c"); !strings.Contains(got, "more than one begins so") {
		t.Errorf("of several: %s", got)
	}
	if got := l.lnctl(0, "check"); strings.Count(got, "✓") != 3 {
		t.Errorf("check: %s", got)
	}
	l.must(exec.Command("nsenter", "--net="+netnsOf("c1"), "ip", "addr", "flush", "dev", "eth0").Run())
	for _, args := range []string{"endpoint inspect c1", "check", "check web", "check -o json"} {
		if got := l.lnctl(exitProblem, strings.Fields(args)...); !strings.Contains(got, "10.32.0.2") || !strings.Contains(got, "1 of ") {
			t.Errorf("%s: %s", args, got)
		}
	}
	l.lnctl(0, "check", "plain")
}
