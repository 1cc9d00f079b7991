package nft

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// Whatever is removed of our tables is told; what we add, and what others
// remove of theirs, is not.
func TestWatch(t *testing.T) {
	t.Parallel()
	f := start(t)
	n, e := sample(1)
	nft := func(line string) func() error {
		return func() error { return exec.Command("nft", strings.Fields(line)...).Run() }
	}
	apply := func() error { _, err := f.Apply(t.Context(), n, e); return err }
	for _, tt := range []struct {
		name string
		do   func() error
		want bool
	}{
		{"rules come", apply, false},
		{"another's table comes", nft("add table inet other"), false},
		{"another's table goes", nft("delete table inet other"), false},
		{"an endpoint's rules go", func() error { return f.Remove(t.Context(), e) }, true},
		{"a chain is flushed", nft("flush chain inet libnet forward"), true},
		{"our table goes", nft("delete table inet libnet"), true},
		{"rules come again", apply, false},
		{"everything goes", nft("flush ruleset"), true},
	} {
		if got := tells(t, tt.do, tt.want); got != tt.want {
			t.Errorf("%s: told of it %t, want %t", tt.name, got, tt.want)
		}
	}
}

// tells says whether a watcher that is there only for this change tells of it.
func tells(t *testing.T, do func() error, want bool) bool {
	t.Helper()
	w, err := Watch()
	if err != nil {
		t.Fatal(err)
	}
	patience := 2 * lntest.WaitForAnswer
	if !want {
		patience = lntest.WaitForNone
	}
	return lntest.Tells(t, w, do, patience)
}

// A watcher that is to tell of additions does.
func TestWatchAdditions(t *testing.T) {
	t.Parallel()
	start(t)
	nft := func(line string) func() error {
		return func() error { return exec.Command("nft", strings.Fields(line)...).Run() }
	}
	for _, line := range []string{"add table inet ours", "add chain inet ours c", "add set inet ours s { type ipv4_addr ; }"} {
		if err := nft(line)(); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		line            string
		additions, want bool
	}{
		{"add rule inet ours c accept", false, false},
		{"add rule inet ours c accept", true, true},
		{"insert rule inet ours c accept", true, true},
		{"add element inet ours s { 192.0.2.1 }", true, true},
		{"add table inet other", true, false},
		{"delete element inet ours s { 192.0.2.1 }", true, true},
	} {
		w, err := WatchTable("ours", tt.additions, nil)
		if err != nil {
			t.Fatal(err)
		}
		patience := 2 * lntest.WaitForAnswer
		if !tt.want {
			patience = lntest.WaitForNone
		}
		if got := lntest.Tells(t, w, nft(tt.line), patience); got != tt.want {
			t.Errorf("%s: told of it %t, want %t", tt.line, got, tt.want)
		}
	}
}
