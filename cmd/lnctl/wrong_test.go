package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/model"
)

// Wrong arguments are an error that names the flag and its value, or the network,
// once, and nothing is printed that looks like an answer.
func TestWrongArguments(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.attach(l.network("web", natMode("ln0"), "10.32.0.0/24"), "c1")
	l.must(os.WriteFile("/run/file", nil, 0o600))
	for args, want := range map[string]string{
		"--state-dir run/libnet network ls":       `--state-dir "run/libnet": want an absolute path`,
		"--state-dir /run/nonexistent network ls": `--state-dir "/run/nonexistent": there is no such directory`,
		"--state-dir /run/file ports":             `--state-dir "/run/file": it is no directory`,
		"--data-dir leases network ls":            `--data-dir "leases": want an absolute path`,
		"completion nosh":                         `unknown command "nosh" for lnctl completion: did you mean "lnctl completion bash" or "lnctl completion zsh" or "lnctl completion fish"?; see lnctl completion --help`,
		"completion":                              "want a shell: bash, zsh, fish or powershell",
		"repair --conf-dir /run/nonexistent":      `--conf-dir "/run/nonexistent": there is no such directory`,
	} {
		if got := l.lnctl(exitUsage, strings.Fields(args)...); got != "lnctl: "+want+"\n" {
			t.Errorf("%s: %q, want %s", args, got, want)
		}
	}
	for args, want := range map[string]string{
		"overlay peers nosuch": `network "nosuch": not found`, "overlay check nosuch": `network "nosuch": not found`,
		"network rm nosuch": `network "nosuch": not found`, "network inspect nosuch": `network "nosuch": not found`,
		"network rm web": `network has endpoints: "web": c1 eth0: remove these containers first`,
		"network rm a/b": `invalid name: network name "a/b"`,
	} {
		if got := l.lnctl(exitProblem, strings.Fields(args)...); !strings.HasPrefix(got, "lnctl: "+want) || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: %q, want %s", args, got, want)
		}
	}
	if got := l.lnctl(exitOK, "--version"); got != l.lnctl(exitOK, "version") {
		t.Errorf("--version: %q", got)
	}
}

// Where rules are in iptables doctor does not say that none are needed, and a bridge
// that is missing it names once for each attachment.
func TestDoctorSaysIt(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	cfg := natMode("ln0")
	cfg.Backend = model.BackendIPTables
	l.attach(l.network("web", cfg, "10.32.0.0/24"), "c1")
	if got := l.lnctl(exitOK, "doctor"); !strings.Contains(got, "by iptables, for 1 of the attachments below") {
		t.Errorf("rules in iptables:\n%s", got)
	}
	l.must(exec.Command("ip", "link", "del", "ln0").Run())
	got := l.failing("bridges", "attachments")
	for line := range strings.Lines(got) {
		if strings.Count(line, "not found") > 1 || strings.Contains(line, "1 links") {
			t.Errorf("doctor without the bridge: %s", line)
		}
	}
	if !strings.Contains(got, "lnctl repair; if that leaves it, restart the container") {
		t.Errorf("doctor without the bridge:\n%s", got)
	}
	l.lnctl(exitOK, "repair")
	l.failing()
}

// A configuration is shown in words, also that of a network that spans hosts.
func TestInspectWords(t *testing.T) {
	t.Parallel()
	for want, value := range map[string]any{
		"MTU 1400":                       1400,
		"TrustedInterfaces [eth1, eth2]": []string{"eth1", "eth2"},
		"VLANTrunk [(Min 1, Max 7)]":     []model.VLANRange{{Min: 1, Max: 7}},
		"Tunnel (Agent, Port 4790)":      model.TunnelConfig{Agent: true, Port: 4790},
		"AcceptFwMark 0x1/0xffff":        model.FwMark{Value: 1, Mask: 0xffff},
	} {
		name, _, _ := strings.Cut(want, " ")
		if got := words(map[string]any{name: value}); len(got) != 1 || got[0] != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
