package integration

import (
	"strings"
	"testing"
)

// doctor sees an element that opens a closed bridge, also under the name of its guard,
// of which CHECK does not ask, and finds nothing at a guard that is as it was made.
func TestDoctorSeesGuard(t *testing.T) {
	nat := `{"cniVersion":"1.1.0","name":"shut","type":"bridge-ln","bridge":"brl","gatewayMode":"nat","ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.84.0.0/24"}],[{"subnet":"fd84::/64"}]]}}`
	for name, row := range map[string]struct {
		keys      keys
		nft, want string
	}{
		"nat":                  {want: ""},
		"nat and routed":       {keys: keys{"gatewayMode": raw(`{"ipv4":"nat","ipv6":"routed"}`)}},
		"isolated":             {keys: keys{"gatewayMode": "isolated"}},
		"trusted, with a mark": {keys: keys{"trustedInterfaces": raw(`["lo"]`), "acceptFwMark": "0x10/0x30"}},
		"none":                 {keys: keys{"gatewayMode": nil, "icc": false}},
		"routed by hand":       {nft: `routed { ipv4 . "brl" comment "libnet-bridge:brl" }`, want: "(IPv4 routed, IPv6 nat), and its networks ask for (IPv4 nat, IPv6 nat)"},
		"trusted by hand":      {nft: `trusted { "lo" . "brl" comment "libnet-bridge:brl" }`, want: "trusted lo), and its networks ask for (IPv4 nat, IPv6 nat)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.must(attachment("bridge-ln", "c", h.netns("c"), edit(t, nat, row.keys)).as("ADD"))
			if row.nft != "" {
				h.exec("nft", "add element inet libnet "+row.nft)
			}
			said := h.doctor()
			if finds := strings.Contains(said, "guard"); finds != (row.want != "") || !strings.Contains(said, row.want) {
				t.Errorf("doctor, want %q:\n%s", row.want, said)
			}
		})
	}
}
