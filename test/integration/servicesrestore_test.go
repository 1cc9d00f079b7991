package integration

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// An operator saves all rules of the host with nft(8), and restores them: services, published ports
// and the network work as before; doctor finds nothing after repair.
func TestRulesSavedAndRestored(t *testing.T) {
	l := newServicesLab(t, nil)
	for _, name := range []string{"b1", "b2"} {
		l.add(name, "web")
	}
	l.add("client", "client")
	v4, v6 := l.create("--publish", "8000:80/tcp")
	sticky4, sticky6, _ := strings.Cut(l.lnctl("service", "create", "sticky", "--network", "net", "--select", "alias=web", "--port", "80:8080", "--affinity", "client"), ",")
	host4, host6 := hostAddr(false).String(), hostAddr(true).String()
	works := func(when string) {
		t.Helper()
		for _, to := range []string{v4, v6, sticky4, sticky6} {
			for _, from := range []string{"client", "b1", ""} {
				if got := l.ask(from, "tcp", to, 80); !strings.Contains(got, " saw ") {
					t.Errorf("%s: %q at %s: %q", when, from, to, got)
				}
			}
		}
		for _, to := range []string{host4, host6} {
			if got := l.ask("world", "tcp", to, 8000); !strings.Contains(got, " saw ") {
				t.Errorf("%s: outside at %s: %q", when, net.JoinHostPort(to, "8000"), got)
			}
			if got := l.ask("world", "tcp", to, 8001); !strings.HasPrefix(got, "error") {
				t.Errorf("%s: outside at a port that is not published: %q", when, got)
			}
		}
		if got := l.ask("world", "tcp", v4, 80); !strings.HasPrefix(got, "error") {
			t.Errorf("%s: outside at the service's own address: %q", when, got)
		}
	}
	works("before")
	nft := func(args ...string) []byte {
		t.Helper()
		out, err := exec.Command("nft", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("nft %v: %v: %s", args, err, out)
		}
		return out
	}
	saved := filepath.Join(t.TempDir(), "saved")
	l.check(os.WriteFile(saved, nft("list", "ruleset"), 0o600))
	nft("flush", "ruleset")
	if got := l.ask("client", "tcp", v4, 80); !strings.HasPrefix(got, "error") {
		t.Errorf("without rules: %q", got)
	}
	nft("-f", saved)
	works("restored")
	l.lnctl("repair") // nft writes some rules in another form than we
	if out, err := l.tryLnctl("doctor"); err != nil {
		t.Errorf("doctor: %v: %s", err, out)
	}
	works("repaired")
	l.must(l.call("b2", "web").as("DEL")) // the programs of ours go on with what they find
	for range 8 {
		if got := l.ask("client", "tcp", v4, 80); !strings.HasPrefix(got, "b1 saw ") {
			t.Errorf("after a container went: %q", got)
		}
	}
	l.lnctl("service", "rm", "web", "--network", "net")
	if got := l.ask("world", "tcp", host4, 8000); !strings.HasPrefix(got, "error") {
		t.Errorf("the port of a service that is removed: %q", got)
	}
}
