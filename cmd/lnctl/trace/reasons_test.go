package trace

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/nftrace"
	"github.com/libnet-cni/libnet/internal/state"
)

// Every rule of the tables that drops packets has a reason, and no reason is of a rule that is none.
func TestEveryDropHasAReason(t *testing.T) {
	rules := map[string]bool{}
	for _, family := range ruleset.TableFamilies {
		for _, chain := range ruleset.TableOf(family).Chains {
			for _, r := range chain.Rules {
				rules[r.Why] = true
			}
		}
	}
	for comment := range reasons {
		if !rules[comment] {
			t.Errorf("%q is the comment of no rule", comment)
		}
	}
	dropping := regexp.MustCompile(`\{"([^"]+)",[^{]*?Drop\)\}`)
	found := 0
	for _, file := range []string{"rules.go", "tunnel.go"} {
		source, err := os.ReadFile(filepath.Join("../../../internal/firewall/ruleset", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range dropping.FindAllSubmatch(source, -1) {
			found++
			if _, has := reasons[string(m[1])]; !has {
				t.Errorf("the rule %q drops packets, and has no reason", m[1])
			}
		}
	}
	if found < 15 {
		t.Errorf("only %d rules that drop were found", found)
	}
}

func TestWhy(t *testing.T) {
	on := bridgesOf([]state.Endpoint{{Network: "web", Bridge: "br0"}, {Network: "web", Bridge: "br0"}, {Network: "shop", Bridge: "br0"}, {Network: "pods"}})
	for want, s := range map[string]nftrace.Step{
		`network "web" or "shop": it is internal (internal, or gatewayMode isolated): give the other container this network, too`:        {Comment: "nothing into an internal network", In: "br1", Out: "br0"},
		"the network of br1: it is internal (internal, or gatewayMode isolated): give the container another network for what is outside": {Comment: "nothing out of an internal network", In: "br1", Out: "br0"},
		"": {Comment: "of another release", Out: "br0"},
	} {
		if got := on.why(s); got != want {
			t.Errorf("%+v: %q, want %q", s, got, want)
		}
	}
}
