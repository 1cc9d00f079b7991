package responder

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The kernel alone can tell the names of a member.
func TestRecover(t *testing.T) {
	r, _ := newResponder(t)
	shop := member("web", "shop", 12, "10.9.0.4", "fd09::4")
	shop.Names = []string{"shop", "a.b", "6f2d1c9b4a70", "shop.prod"}
	alone := member("Back.end", "x", 13, "10.8.0.4")
	alone.Domain = ""
	put(t, r, shop, alone, member("web", "other", 14, "10.9.0.5"))
	for owner, want := range map[string][]string{
		shop.Owner: {"shop", "6f2d1c9b4a70", "a.b", "shop.prod"}, alone.Owner: {"x"}, "libnet:web/none/eth0": nil,
	} {
		network, domain := "web", "libnet.internal"
		if owner == alone.Owner {
			network = "Back.end"
		}
		if owner == alone.Owner || want == nil {
			domain = ""
		}
		names, in, err := r.Recover(context.Background(), owner, network)
		if diff := cmp.Diff(want, names); diff != "" || in != domain || err != nil {
			t.Errorf("%s: domain %q, %v\n%s", owner, in, err, diff)
		}
	}
}

// The map is whole once that is said of it, until it is lost.
func TestWhole(t *testing.T) {
	r, _ := newResponder(t)
	m := member("web", "c1", loopback, "10.9.0.2")
	for _, lost := range []string{"", namesPin, wholePin, "both"} {
		switch dir, err := r.dir(); {
		case err != nil:
			t.Fatal(err)
		case lost == "both":
			if err := removeDir(dir); err != nil {
				t.Fatal(err)
			}
		case lost != "":
			if err := os.Remove(filepath.Join(dir, lost)); err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range []bool{false, false, true} {
			if want {
				if err := r.MarkWhole(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if whole, err := r.Whole(); err != nil || whole != want {
				t.Errorf("lost %q: whole %v, want %v: %v", lost, whole, want, err)
			}
			if whole, err := r.Put(t.Context(), &m, nil); err != nil || whole != want {
				t.Errorf("lost %q: Put says %v, want %v: %v", lost, whole, want, err)
			}
		}
	}
}
