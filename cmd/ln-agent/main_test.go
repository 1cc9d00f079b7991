package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Flags that cannot work are refused, by name, before anything is touched.
func TestRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	for args, says := range map[string]string{
		"what":                                 "unknown argument",
		"--what":                               "unknown flag",
		"--live-ttl 1s":                        "--live-ttl 1s: want 3s",
		"--heal-after 1s":                      "--heal-after 1s: want 0",
		"--block-ttl 10s":                      "--block-ttl 10s: want 0",
		"--log-level loud":                     `--log-level "loud"`,
		"--log-format xml":                     `--log-format "xml"`,
		"--endpoints 192.0.2.9:2379":           "want a URL",
		"--endpoints ftp://192.0.2.9":          "want a URL",
		"--cacert x --endpoints http://h:2379": "want https",
		"--cert x --endpoints https://h:2379":  "--cert and --key: want both",
		"--prefix libnet":                      "begins with a slash",
		"--user u":                             "--password-file",
		"--node-name a/b":                      `--node-name "a/b"`,
		"--node-address 127.0.0.1":             `--node-address "127.0.0.1"`,
		"--node-address ::":                    `--node-address "::"`,
		"--local --names-limit -1":             "--names-limit -1: want 0",
		"--names-limit x":                      "invalid argument",
		"--local --kubernetes":                 "--local and --kubernetes: want one of them",
		"--kubernetes --endpoints http://h:2":  "--endpoints: is about etcd",
		"leave --kubernetes --block-ttl 0":     "--block-ttl: is about etcd",
		"--kubernetes --node-name a/b":         `--node-name "a/b"`,
		"--kubernetes --rotate-every 1s":       "--rotate-every 1s: want 0",
		"leave --live-ttl 1s":                  "--live-ttl 1s: want 3s",
	} {
		var stderr bytes.Buffer
		full := append(strings.Fields(args), "--state-dir", dir)
		if code := run(full, func(string) string { return "" }, &bytes.Buffer{}, &stderr); code != exitUsage || !strings.Contains(stderr.String(), says) {
			t.Errorf("%s: exit %d, %q, want %d and %q", args, code, stderr.String(), exitUsage, says)
		}
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("something is in the state directory: %v", err)
	}
}

// An agent that is no pod of a cluster says what it needs, and one whose kubeconfig is missing names it.
func TestKubernetesNeedsConfig(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	missing := filepath.Join(t.TempDir(), "none")
	for args, says := range map[string]string{
		"--kubernetes --node-name m1": "see --kubeconfig", "--kubernetes --node-name m1 --kubeconfig " + missing: "--kubeconfig " + missing,
	} {
		var stderr bytes.Buffer
		full := append(strings.Fields(args), "--state-dir", t.TempDir())
		if code := run(full, func(string) string { return "" }, &bytes.Buffer{}, &stderr); code != exitProblem || !strings.Contains(stderr.String(), says) {
			t.Errorf("%s: exit %d, %q, want %d and %q", args, code, stderr.String(), exitProblem, says)
		}
	}
}

// Of two agents on a host the second one is told.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "overlay", "agent.lock")
	unlock, err := lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(path); err == nil || !strings.Contains(err.Error(), "at work on this host") {
		t.Errorf("a second time: %v", err)
	}
	unlock()
	again, err := lock(path)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestVersion(t *testing.T) {
	var stdout bytes.Buffer
	if code := run([]string{"version"}, os.Getenv, &stdout, &bytes.Buffer{}); code != exitOK || !strings.HasPrefix(stdout.String(), "ln-agent v") {
		t.Errorf("exit %d, %q", code, stdout.String())
	}
}
