package ruleset

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/firewall"
)

func TestPlanConditions(t *testing.T) {
	e := firewall.Endpoint{Owner: "o", Bridge: "br0", Addrs: addrs("10.0.0.2", "fd00::2"), ConditionsIPv4: words("iifname eth0"),
		Ports: []firewall.PortMap{tcp(8080, 80), upTo(99, tcp(90, 90)), from(at("192.0.2.1", upTo(71, tcp(70, 7))), "10.0.0.0/8")}}
	p, err := Plan(firewall.Network{}, e)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range p.Elems {
		got = append(got, e.String())
	}
	const low, high = "0.0.0.0-126.255.255.255", "128.0.0.0-255.255.255.255" // without Hairpin not by localhost
	want := []string{
		"ip libnet gate { " + low + " . tcp . 8080 : goto ep-af63e24c8601f6be }",
		"ip libnet gate { " + high + " . tcp . 8080 : goto ep-af63e24c8601f6be }",
		"ip libnet from { 0.0.0.0-255.255.255.255 . " + low + " . tcp . 8080 : 10.0.0.2 . 80 }",
		"ip libnet from { 0.0.0.0-255.255.255.255 . " + high + " . tcp . 8080 : 10.0.0.2 . 80 }",
		"ip libnet gate { " + low + " . tcp . 90-99 : goto ep-af63e24c8601f6be }",
		"ip libnet gate { " + high + " . tcp . 90-99 : goto ep-af63e24c8601f6be }",
		"ip libnet span { 0.0.0.0-255.255.255.255 . " + low + " . tcp . 90-99 : 10.0.0.2 }",
		"ip libnet span { 0.0.0.0-255.255.255.255 . " + high + " . tcp . 90-99 : 10.0.0.2 }",
		"ip libnet gate { 192.0.2.1 . tcp . 70-71 : goto ep-af63e24c8601f6be }",
		"ip libnet from { 10.0.0.0-10.255.255.255 . 192.0.2.1 . tcp . 70 : 10.0.0.2 . 7 }",
		"ip libnet from { 10.0.0.0-10.255.255.255 . 192.0.2.1 . tcp . 71 : 10.0.0.2 . 8 }",
		"inet libnet anyport6 { tcp . 8080 : fd00::2 . 80 }",
		"inet libnet span6 { ::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff . ::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff . tcp . 90-99 : fd00::2 }",
		"inet libnet owners { d228:cb69:651a:8caf:7891:2b70:4e4a:7d16 }",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(p.Gates) != 1 || p.Gates[0].Script() != `flush chain ip libnet ep-af63e24c8601f6be
add rule ip libnet ep-af63e24c8601f6be iifname eth0 goto met comment "o 6cc64399"
` {
		t.Errorf("gates %+v:\n%s", p.Gates, p.Gates[0].Script())
	}
}
