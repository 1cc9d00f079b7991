package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/diagnostics"
	"github.com/libnet-cni/libnet/internal/graph"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// lnctlOn calls lnctl on a host.
func (a *agents) lnctlOn(host string, args ...string) (out string, err error) {
	a.t.Helper()
	a.in(netnsPath(host), func() {
		cmd := exec.Command(program(a.t, "lnctl"), append([]string{"--state-dir", "/run/libnet-" + host, "--data-dir", "/var/lib/leases-" + host}, args...)...)
		var data []byte
		data, err = cmd.CombinedOutput()
		out = string(data)
	})
	return out, err
}

// saidByAgent is what lnctl agent says of a subject.
func saidByAgent[T any](a *agents, host, subject string) (v T) {
	a.t.Helper()
	out, err := a.lnctlOn(host, "agent", subject, "-o", "json")
	if jsonErr := json.NewDecoder(strings.NewReader(out)).Decode(&v); jsonErr != nil { // an error follows
		a.t.Fatalf("lnctl agent %s: %v, %v: %s", subject, err, jsonErr, out)
	}
	return v
}

// ln-agent says what it knows: of itself, its networks, the other hosts and all blocks; and that
// a host, or etcd, is away.
func TestAgentDiagnostics(t *testing.T) {
	t.Parallel()
	a := newAgents(t, 3)
	a.up(nil)
	c := a.attach("h1", "c-h1", nil)
	a.awaitHealth("h1", "ok")

	if info, err := os.Stat("/run/libnet-h1/overlay/http.sock"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	s := saidByAgent[diagnostics.Status](a, "h1", "status")
	if s.Node != "h1" || s.Registry != "etcd" || !s.Connected || s.Networks != 1 || s.Peers != 2 || len(s.Problems) != 0 || !strings.Contains(fmt.Sprint(s.Tasks), "overlay") || s.Started.IsZero() {
		t.Errorf("%+v", s)
	}
	var n diagnostics.Network
	if !lntest.Await(agentPatience, func() bool {
		all := saidByAgent[[]diagnostics.Network](a, "h1", "networks")
		n = all[0]
		return len(all) == 1 && n.Held > 0
	}) {
		t.Errorf("%+v", n)
	}
	if n.Name != "net0" || n.VNI == 0 || n.Peers != 2 || n.Programmed != 2 || len(n.Blocks) == 0 || n.Held == 0 || n.Synced == nil || len(n.Problems) != 0 {
		t.Errorf("%+v", n)
	}
	peers := saidByAgent[[]diagnostics.Peer](a, "h1", "peers")
	if len(peers) != 2 || peers[0].Node != "h2" || peers[1].Node != "h3" || !peers[0].Live || len(peers[0].Blocks) == 0 {
		t.Errorf("%+v", peers)
	}
	own := 0
	blocks := saidByAgent[[]diagnostics.Block](a, "h1", "blocks")
	for _, b := range blocks {
		if b.Own {
			own++
		}
	}
	if len(blocks) != 3*len(n.Blocks) || own != len(n.Blocks) {
		t.Errorf("%d of %+v", own, blocks)
	}
	for subject, want := range map[string]string{"status": "etcd, connected", "networks": "2 of 2", "peers": peers[0].Address, "blocks": "h1 (this host)"} {
		if out, err := a.lnctlOn("h1", "agent", subject); err != nil || !strings.Contains(out, want) {
			t.Errorf("lnctl agent %s: %v: no %q in\n%s", subject, err, want, out)
		}
	}
	var hosts []graph.Host
	a.check(diagnostics.Get(t.Context(), "/run/libnet-h1/overlay/http.sock", "/v1/graph", &hosts))
	if len(hosts) != 1 || hosts[0].Host != "h1" || len(hosts[0].Networks) != 1 || len(hosts[0].Networks[0].Containers) != 1 || hosts[0].Networks[0].Containers[0].Problem != "" {
		t.Errorf("%+v", hosts)
	}

	a.procs["h2"].kill(t)
	a.etcd.Kill()
	if !lntest.Await(agentPatience, func() bool { return !saidByAgent[diagnostics.Status](a, "h1", "status").Connected }) {
		t.Error("etcd is away, and the agent says that it is connected")
	}
	if out, err := a.lnctlOn("h1", "agent", "status"); err == nil || !strings.Contains(out, "NOT connected") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := a.lnctlOn("h2", "agent", "peers"); err == nil || !strings.Contains(out, "no ln-agent answers") {
		t.Errorf("%v: %s", err, out)
	}
	a.mustOn("h1", c.call.as("DEL"))
}

// An agent that answers for its host alone says so, and draws the host.
func TestAgentDiagnosticsLocal(t *testing.T) {
	h := newHost(t)
	log := &tail{}
	h.daemon(log, "ln-agent", "--local")
	h.must(attachment("bridge-ln", "c1", h.netns("c1"), good).as("ADD"))
	if !lntest.Await(agentPatience, func() bool {
		out, err := exec.Command(program(t, "lnctl"), "agent", "status").CombinedOutput()
		return err == nil && strings.Contains(string(out), "this host alone")
	}) {
		t.Fatalf("%s", log)
	}
	out, err := exec.Command(program(t, "lnctl"), "agent", "networks").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "no network") {
		t.Errorf("%v: %s", err, out)
	}
	var hosts []graph.Host
	h.check(diagnostics.Get(t.Context(), "/run/libnet/overlay/http.sock", "/v1/graph", &hosts))
	if len(hosts) != 1 || len(hosts[0].Networks) != 1 || hosts[0].Networks[0].Containers[0].ID != "c1" {
		t.Errorf("%+v", hosts)
	}
}
