package iptables

import "testing"

func TestVersion(t *testing.T) {
	for text, want := range map[string][3]int{
		"iptables v1.8.9 (nf_tables)\n": {1, 8, 9},
		"iptables v1.6.2\n":             {1, 6, 2},
		"iptables v1.6\n":               {1, 6, 0},
		"ip6tables\n":                   {},
		"":                              {},
	} {
		if got := version(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
