package ruleset

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// A flag of a network is about packets that are kept out, or let in: its elements are in the sets
// by which repair and upgrade tell a bridge that is open from one that is closed.
func TestEveryFlagClosesOrOpens(t *testing.T) {
	flags := 0
	for i := range reflect.TypeFor[firewall.Network]().NumField() {
		n := firewall.Network{Name: "net", Bridge: "br0"}
		field := reflect.ValueOf(&n).Elem().Field(i)
		if field.Kind() != reflect.Bool {
			continue
		}
		flags++
		field.SetBool(true)
		all, _, err := PlanNetwork(n)
		if err != nil {
			t.Fatal(err)
		}
		counts := func(e Elem) bool {
			return slices.Contains(ClosingSets, e.Set) || slices.Contains(OpeningSets, e.Set) && e.Set != &Inside
		}
		if !slices.ContainsFunc(all, counts) {
			t.Errorf("%s: none of its elements %v is in ClosingSets or OpeningSets", reflect.TypeFor[firewall.Network]().Field(i).Name, all)
		}
	}
	if flags < 4 {
		t.Errorf("only %d fields were looked at", flags)
	}
}

// The page on the way of a packet has every set and chain. Siblings for IPv6 go without a word.
func TestPacketWalkHasAllSets(t *testing.T) {
	page, err := os.ReadFile("../../../docs/packet-walk.md")
	if err != nil {
		t.Fatal(err)
	}
	told := func(what, name string) {
		if !strings.Contains(string(page), "`"+name+"`") && !strings.Contains(string(page), "`"+strings.TrimSuffix(name, "6")+"4`") {
			t.Errorf("docs/packet-walk.md does not tell of the %s %s", what, name)
		}
	}
	for _, family := range TableFamilies {
		table := TableOf(family)
		for _, s := range table.Sets {
			told("set", s.Name)
		}
		for _, c := range table.Chains {
			told("chain", c.Name)
		}
	}
}
