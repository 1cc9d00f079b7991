package ruleset

import (
	"errors"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// A condition that could be a second statement is refused before nft sees it.
func TestCheckConditions(t *testing.T) {
	for _, good := range []string{"", `ip saddr { 10.0.0.0/8, 192.0.2.1 }`, `iifname "eth0"`, "limit rate 5/second", "tcp sport != 1-1023"} {
		if err := firewall.CheckConditions(words(good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range [][]string{
		{"accept\nadd rule inet libnet forward accept"}, {"accept", ";", "flush", "ruleset"}, {"accept #"}, {"accept;"}, {`a\`},
		{`iifname "eth0`}, {`"`, `"`}, {"}"}, {"ip", "saddr", "{", "10.0.0.1"}, {"}", "{"}, {"a\x00"}, {"a\rb"}, {"jump {", "drop;", "}"},
	} {
		if err := firewall.CheckConditions(bad); !errors.Is(err, firewall.ErrInvalid) {
			t.Errorf("%q: got %v, want ErrInvalid", bad, err)
		}
		if _, err := Plan(firewall.Network{}, firewall.Endpoint{Owner: "o", Bridge: "br0", Addrs: addrs("10.0.0.2"), Ports: []firewall.PortMap{tcp(1, 1)}, ConditionsIPv4: bad}); !errors.Is(err, firewall.ErrInvalid) {
			t.Errorf("plan of %q: got %v, want ErrInvalid", bad, err)
		}
	}
}
