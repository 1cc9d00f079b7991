package operator

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall/admit"
)

// Diagnose tells when policies are not in force, or new pods stay closed.
func TestDiagnoseNetworkPolicies(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	found := func(want string, healthy bool) {
		t.Helper()
		for _, f := range h.Diagnose(context.Background()) {
			if f.About != "network policies" {
				continue
			}
			if want == "" || !strings.Contains(f.Found, want) || healthy != (f.Advice == "") {
				t.Errorf("got %+v, want %q", f, want)
			}
			return
		}
		if want != "" {
			t.Errorf("nothing is said, want %q", want)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	found("", true)
	tables := admit.New()
	t.Cleanup(func() { _ = tables.Close() })
	must(tables.Replace(context.Background(), nil))
	found("new pods stay closed", false)
	mark := admit.MarkPath(h.Operator.dir.Path())
	must(os.MkdirAll(filepath.Dir(mark), 0o700))
	must(os.WriteFile(mark, nil, 0o600))
	found("ln-agent does not run: what is in force stays so", false)
	must(tables.Drop(context.Background()))
	found("and ln-agent does not run: pods are not isolated", false)
	must(tables.Replace(context.Background(), nil))
	lock, err := os.Create(filepath.Join(filepath.Dir(mark), "agent.lock"))
	must(err)
	t.Cleanup(func() { _ = lock.Close() })
	must(unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	found("in force", true)
	must(tables.Drop(context.Background()))
	found("not isolated", false)
}
