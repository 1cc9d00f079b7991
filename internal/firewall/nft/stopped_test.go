package nft

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// nftIn runs nft in the test's namespace.
func nftIn(t testing.TB, script string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
}

// All our rules may be in place and yet not hold: the table is dormant, or a rule, a
// chain or a policy that is not ours decides before them. Verify and Intact say so,
// Restore and the next Apply end it.
func TestRulesThatDoNotHold(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, script, says string }{
		{"dormant", `add table inet libnet { flags dormant; }`, "table inet libnet, which is dormant"},
		{"dormant bridge", `add table bridge libnet { flags dormant; }`, "table bridge libnet, which is dormant"},
		{"rule in marks", `add rule inet libnet marks accept`, `rule inet libnet marks "", which is not ours`},
		{"rule in marks that lies", `add rule inet libnet marks accept comment "net br9 0x1/0x1"`, `rule inet libnet marks "net br9 0x1/0x1", which is not ours`},
		{"chain before ours", `add chain inet libnet theirs { type filter hook forward priority -20; policy drop; }`, "chain inet libnet theirs, which is not ours"},
		{"chain of frames", `add chain bridge libnet theirs { type filter hook forward priority 0; policy drop; }`, "chain bridge libnet theirs, which is not ours"},
		{"policy", `chain inet libnet forward { type filter hook forward priority filter - 1; policy drop; }`, "base chain inet libnet forward"},
	} {
		for _, mend := range []string{"Restore", "Apply"} {
			if mend == "Apply" && strings.HasPrefix(c.name, "rule") {
				continue // that looks at no rule
			}
			t.Run(c.name+"/"+mend, func(t *testing.T) {
				f := start(t)
				n, e := released()
				mustApply(t, f, n, e)
				mustComplete(t, f)
				mustVerify(t, f, n, e)
				nftIn(t, c.script)
				for verb, err := range map[string]error{"Verify": f.Verify(t.Context(), n, e), "Intact": f.Intact(t.Context(), n)} {
					if err == nil || !strings.Contains(err.Error(), c.says) || !errors.Is(err, firewall.ErrChanged) && !errors.Is(err, firewall.ErrConflict) {
						t.Errorf("%s: %v, want %q", verb, err, c.says)
					}
				}
				if mend == "Apply" {
					mustApply(t, f, n, e)
				} else if changed, err := f.Restore(t.Context()); err != nil || !changed {
					t.Fatalf("Restore: %t, %v", changed, err)
				}
				mustComplete(t, f)
				mustVerify(t, f, n, e)
				if err := f.Intact(t.Context(), n); err != nil {
					t.Error(err)
				}
				if changed, err := f.Restore(t.Context()); err != nil || changed {
					t.Errorf("Restore once more: %t, %v", changed, err)
				}
			})
		}
	}
}

// A foreign set in our table that lets nothing by our rules does not count as a
// fault: to ADD, the table would be one to write anew each time.
func TestForeignSetInOurTable(t *testing.T) {
	t.Parallel()
	f := start(t)
	n, e := released()
	mustApply(t, f, n, e)
	mustComplete(t, f)
	nftIn(t, `add set inet libnet theirs { type ipv4_addr; }
add counter inet libnet theirs`)
	mustVerify(t, f, n, e)
	if restored, err := f.Apply(t.Context(), n, e); err != nil || restored {
		t.Errorf("Apply: %t, %v", restored, err)
	}
}

// A packet that a dormant table let through is refused once it is awake.
func TestDormantIsOpen(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	n := l.n
	n.Internal = true
	mustApply(t, l.f, n, l.eA)
	l.wantNothing(l.out, "10.10.0.2")
	nftIn(t, `add table inet libnet { flags dormant; }`)
	if !l.heard(l.out, l.a, "10.10.0.2", lntest.WaitForAnswer) {
		t.Error("nothing comes through a dormant table")
	}
	if _, err := l.f.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.wantNothing(l.out, "10.10.0.2")
	mustVerify(t, l.f, n, l.eA)
}

// An element that has no owner opens a port to the clients it names. It is reported,
// and Restore deletes it; what has an owner stays.
func TestOwnerless(t *testing.T) {
	t.Parallel()
	f := start(t)
	n, e := released()
	mustApply(t, f, n, e)
	mustComplete(t, f)
	nftIn(t, `add element inet libnet inside { "br0" . "br9" }
add element inet libnet routed { ipv4 . "br0" }
add element inet libnet open4 { 10.0.0.2 . tcp . 22 }
add element inet libnet openspan4 { 0.0.0.0-255.255.255.255 . 10.0.0.2 . tcp . 1-9 }
flush chain inet libnet closed
add element inet libnet port4 { 192.0.2.1 . tcp . 80 : 10.0.0.2 . 80 }`)
	want := []string{"inside { br0 . br9 }", "routed { ipv4 . br0 }", "open4 { 10.0.0.2 . tcp . 22 }", "openspan4", "port4 { 192.0.2.1 . tcp . 80"}
	all, err := f.Ownerless(t.Context())
	says := strings.Join(all, "; ")
	if err != nil || len(all) != len(want) {
		t.Errorf("Ownerless: %q, %v; want %q", all, err, want)
	}
	for _, w := range want {
		if !strings.Contains(says, w) {
			t.Errorf("Ownerless: %q, want %q, too", says, w)
		}
	}
	if changed, err := f.Restore(t.Context()); err != nil || !changed {
		t.Errorf("Restore: %t, %v", changed, err)
	}
	if all, err := f.Ownerless(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("after Restore: %q, %v", all, err)
	}
	mustComplete(t, f)
	mustVerify(t, f, n, e)
}
