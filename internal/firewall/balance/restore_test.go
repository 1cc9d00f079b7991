package balance

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// The output of "nft list ruleset" can be read by "nft -f", and all of ours is there again.
func TestSavedAndRestored(t *testing.T) {
	lntest.Isolate(t)
	f, ctx := New(), context.Background()
	defer func() { _ = f.Close() }()
	elems := f.elems("10.1.0.2")
	if _, err := f.Apply(ctx, elems, nil); err != nil {
		t.Fatal(err)
	}
	saved := lntest.Run(t, "nft", "list", "ruleset")
	for _, want := range []string{
		"typeof ip daddr . meta l4proto . th dport . numgen random mod 64 : ip daddr . th dport",
		"typeof ip6 daddr . meta l4proto . th dport . numgen random mod 64 : ip6 daddr . th dport",
		"10.1.0.9 . tcp . 80 . 63 : 10.1.0.2 . 8080",
	} {
		if !strings.Contains(saved, want) {
			t.Errorf("nft does not say %q", want)
		}
	}
	file := filepath.Join(t.TempDir(), "saved")
	if err := os.WriteFile(file, []byte(saved), 0o600); err != nil {
		t.Fatal(err)
	}
	lntest.Run(t, "nft", "flush", "ruleset")
	lntest.Run(t, "nft", "-f", file)
	missing, _, err := f.Differs(ctx, elems, nil)
	if err != nil || len(missing) > 0 {
		t.Errorf("after it was restored %d of %d elements are missing, %v", len(missing), len(elems), err)
	}
	words := func(text string) []string { // elements come in any order
		text = strings.NewReplacer(" with icmp port-unreachable", "", " with icmpv6 port-unreachable", "").Replace(text) // may be left out
		all := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune("\n\t,{}", r) })
		slices.Sort(all)
		return all
	}
	if diff := cmp.Diff(words(saved), words(lntest.Run(t, "nft", "list", "ruleset"))); diff != "" {
		t.Errorf("it is not as it was saved (-saved +now):\n%s", diff)
	}
}
