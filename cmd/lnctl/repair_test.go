package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// With every file lost, repair writes them anew: what it lists then is what it
// listed before, and all is well.
func TestRepairLostFiles(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.populate()
	l.lnctl(0, "gc") // of the dead nothing would be left to tell
	l.serve("c1", "80")
	leases := func() []string {
		t.Helper()
		files, err := filepath.Glob("/var/lib/cni/networks/*/*[.:]*")
		l.must(err)
		var all []string
		for _, f := range files {
			data, err := os.ReadFile(f)
			l.must(err)
			if name := filepath.Base(f); name[0] != 'l' { // last_reserved_ip.0
				all = append(all, name+" "+string(data))
			}
		}
		return all
	}
	rules := func() string {
		t.Helper()
		out, err := exec.Command("nft", "list", "ruleset").Output()
		l.must(err)
		return string(out)
	}
	seen := func() map[string]any {
		return map[string]any{
			"networks": l.lnctl(0, "network", "ls"), "ports": l.lnctl(0, "ports", "--json"), "leases": leases(), "rules": rules(),
		}
	}
	before := seen()

	l.must(errors.Join(os.RemoveAll("/run/libnet"), os.RemoveAll("/var/lib/cni/networks")))
	golden(t, "repair-lost.txt", l.lnctl(0, "repair"))
	golden(t, "repair-lost-again.json", l.lnctl(0, "repair", "--json"))
	if diff := cmp.Diff(before, seen()); diff != "" {
		t.Errorf("(-lost +rebuilt):\n%s", diff)
	}
	l.failing()
	if got, err := l.call("192.0.2.1:8080"); err != nil || got != "c1" {
		t.Errorf("the published port: %q, %v, want c1", got, err)
	}
}

// With records and rules gone nothing on the host tells that a network was
// closed: the configuration does, and without one repair does not say that all
// is well.
func TestRepairWithoutRules(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.attach(l.network("web", natMode("ln0"), "10.32.0.0/24"), "c1")
	l.serve("c1", "80")
	lntest.Enter(t, l.out, func() {
		l.must(netlink.RouteAdd(&netlink.Route{
			Dst: &net.IPNet{IP: net.IP{10, 32, 0, 0}, Mask: net.CIDRMask(24, 32)}, Gw: net.IP{192, 0, 2, 1},
		}))
	})
	l.must(os.RemoveAll("/run/libnet"))
	l.nft("", "flush", "ruleset")
	if got, err := l.call("10.32.0.2:80"); got != "c1" {
		t.Fatalf("without rules: %q, %v: the test shows nothing", got, err)
	}
	dir := t.TempDir()
	for range 2 { // it does not forget
		if got := l.lnctl(exitProblem, "repair", "--conf-dir", dir); !strings.Contains(got, `network "web"`) || !strings.Contains(got, "cannot be told") || !strings.Contains(got, "1 problem\n") {
			t.Errorf("repair without configuration:\n%s", got)
		}
		l.failing("records")
	}
	conf := `{"cniVersion":"1.0.0","name":"web","plugins":[{"type":"bridge-ln","bridge":"ln0","gatewayMode":"nat","ipam":{"type":"ipam-ln"}}]}`
	l.must(os.WriteFile(filepath.Join(dir, "10-web.conflist"), []byte(conf), 0o600))
	if got := l.lnctl(exitOK, "repair", "--conf-dir", dir); !strings.Contains(got, "rules of 1 attachments and publications put back, 0 untouched, 0 problems") {
		t.Errorf("repair with the configuration:\n%s", got)
	}
	if got, err := l.callWithin("10.32.0.2:80", lntest.WaitForNone); err == nil {
		t.Errorf("after repair: %q, want it closed again", got)
	}
	if got := l.lnctl(exitOK, "repair", "--conf-dir", dir); got != "rules of 0 attachments and publications put back, 1 untouched, 0 problems\n" {
		t.Errorf("repair again: %s", got)
	}
	l.failing()
}

// A network whose own record is lost is found by its attachments.
func TestRepairNetworkRecord(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.populate()
	l.lnctl(exitOK, "gc")
	before := l.lnctl(exitOK, "network", "ls")
	l.must(os.Remove("/run/libnet/networks/web/network.json"))
	l.failing("lost records")
	l.lnctl(exitOK, "repair")
	if after := l.lnctl(exitOK, "network", "ls"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	l.failing()
}
