package integration

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/model"
)

// healedSoon is less than the time after which an agent looks without an event.
const healedSoon = 20 * time.Second

// awaitCheck waits until CHECK of a container finds nothing.
func (a *agents) awaitCheck(c container, host, result, after string) {
	a.t.Helper()
	conf := edit(a.t, a.agentConf(0, host, nil), keys{"prevResult": raw(result)})
	start := time.Now()
	for {
		r := a.tryOn(host, c.call.with(conf).as("CHECK"))
		took := time.Since(start).Round(time.Millisecond)
		if r.code == 0 {
			a.t.Logf("%s: right again after %s", after, took)
			return
		}
		if took > healedSoon {
			a.t.Fatalf("%s: after %s CHECK says %d, %s\n%s", after, took, r.code, r.msg, a.procs[host].log)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// An agent alone, without any ADD or STATUS, puts back what its containers need on the host when
// the kernel tells that it is gone.
func TestAgentHeals(t *testing.T) {
	t.Parallel()
	a := newAgents(t, 2)
	a.up(nil)
	far := a.attach("h2", "far", nil)
	near := container{host: "h1", netns: a.netns("near")}
	near.call = attachment("overlay-ln", "near", near.netns, a.agentConf(0, "h1", nil))
	result := a.mustOn("h1", near.call.as("ADD")).stdout
	for _, addr := range parseResult(t, result).addresses(t) {
		near.addresses = append(near.addresses, addr.Addr())
	}
	a.awaitCheck(near, "h1", result, "ADD")
	a.pingAll(near, far)
	bridge, vx := model.BridgeName("net0"), a.tunnelOf("h1")
	sysctl := func(key string) func() { return func() { a.check(os.WriteFile("/proc/sys/"+key, []byte("0"), 0o644)) } }
	for _, tt := range []struct {
		name string
		do   func()
	}{
		{"bridge deleted", func() { a.check(netlink.LinkDel(a.link(bridge))) }},
		{"bridge down", func() { a.check(netlink.LinkSetDown(a.link(bridge))) }},
		{"gateway deleted", func() {
			all, err := netlink.AddrList(a.link(bridge), netlink.FAMILY_V4)
			a.check(err)
			a.check(netlink.AddrDel(a.link(bridge), &all[0]))
		}},
		{"host does not forward", sysctl("net/ipv4/ip_forward")},
		{"host does not forward IPv6", sysctl("net/ipv6/conf/all/forwarding")},
		{"bridge does not forward", sysctl("net/ipv4/conf/" + bridge + "/forwarding")},
		{"tunnel does not forward", sysctl("net/ipv4/conf/" + vx + "/forwarding")},
	} {
		a.freeze("h1") // so that the damage is seen
		a.in(netnsPath("h1"), tt.do)
		conf := edit(t, a.agentConf(0, "h1", nil), keys{"prevResult": raw(result)})
		if r := a.tryOn("h1", near.call.with(conf).as("CHECK")); r.code == 0 {
			t.Errorf("%s: CHECK finds nothing", tt.name)
		}
		a.check(a.procs["h1"].cmd.Process.Signal(unix.SIGCONT))
		a.awaitCheck(near, "h1", result, tt.name)
		a.pingAll(near, far)
		a.awaitHealth("h1", "ok")
	}
	if log := a.procs["h1"].log.String(); strings.Contains(log, `level=ERROR msg="network not reconciled"`) {
		t.Error("the agent's log has an error though it mended all")
	}
}

// /healthz and the metrics tell of a bridge that an agent cannot put back, until it is there again.
func TestAgentTellsWhatItCannotHeal(t *testing.T) {
	t.Parallel()
	a := newAgents(t, 2)
	a.up(nil)
	near, far := a.attach("h1", "near", nil), a.attach("h2", "far", nil)
	a.pingAll(near, far)
	bridge := model.BridgeName("net0")
	a.freeze("h1")
	a.in(netnsPath("h1"), func() {
		a.check(netlink.LinkDel(a.link(bridge)))
		a.check(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: bridge}, PeerName: "other0"}))
	})
	a.check(a.procs["h1"].cmd.Process.Signal(unix.SIGCONT))
	a.awaitHealth("h1", bridge)
	if body, _ := a.get("h1", "/metrics"); metric(body, `libnet_agent_network_ok{network="net0"}`) != 0 {
		t.Errorf("the network is said to be well:\n%s", ourMetrics(body))
	}
	a.in(netnsPath("h1"), func() { a.check(netlink.LinkDel(a.link(bridge))) })
	a.awaitHealth("h1", "ok")
	a.pingAll(near, far)
}
