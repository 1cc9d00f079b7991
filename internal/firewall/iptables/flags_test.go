package iptables

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// A flag of a network that this backend has no rule for would be taken, and do nothing.
func TestEveryFlagHasRules(t *testing.T) {
	texts := func(n firewall.Network) (all []string) {
		for _, f := range []family{ipv4, ipv6} {
			for _, r := range networkRules(f, n) {
				all = append(all, fmt.Sprint(f, " ", r))
			}
		}
		return all
	}
	flags := 0
	for i := range reflect.TypeFor[firewall.Network]().NumField() {
		n := firewall.Network{Name: "net", Bridge: "br0"}
		without := texts(n)
		field := reflect.ValueOf(&n).Elem().Field(i)
		if field.Kind() != reflect.Bool {
			continue
		}
		flags++
		field.SetBool(true)
		if slices.Equal(texts(n), without) {
			t.Errorf("%s has no rule: write one in networkRules", reflect.TypeFor[firewall.Network]().Field(i).Name)
		}
	}
	if flags < 4 {
		t.Errorf("only %d fields were looked at", flags)
	}
}
