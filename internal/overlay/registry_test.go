package overlay

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func TestTermsDiffer(t *testing.T) {
	agreed := Terms{Subnets: prefixes("10.5.0.0/16"), Size: BlockSize{24, 64}, VNI: 7, Port: 4789, By: "h1"}
	same := agreed
	same.VNI, same.By = 0, "h2" // it does not care
	if err := agreed.Differs(same); err != nil {
		t.Errorf("the same: %v", err)
	}
	for says, change := range map[string]func(*Terms){
		"subnet: [10.6.0.0/16] here, [10.5.0.0/16] by h1": func(t *Terms) { t.Subnets = prefixes("10.6.0.0/16") },
		"blockSize":  func(t *Terms) { t.Size.IPv4 = 25 },
		"vni: 8":     func(t *Terms) { t.VNI = 8 },
		"port: 8472": func(t *Terms) { t.Port = 8472 },
		"IPv6":       func(t *Terms) { t.IPv6 = true },
	} {
		own := agreed
		change(&own)
		if err := agreed.Differs(own); !errors.Is(err, ErrDiffers) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}

func TestHosts(t *testing.T) {
	at := netip.MustParseAddr
	block := func(i int) netip.Prefix { return netip.MustParsePrefix(fmt.Sprintf("10.5.%d.0/24", i)) }
	v := View{
		Members: map[string]Member{
			"a":    {"a", at("192.0.2.1"), true, true, 1, nil},
			"b":    {"b", at("192.0.2.2"), false, true, 2, nil}, // not heard of: it has its blocks
			"old":  {"old", at("192.0.2.3"), false, true, 9, nil},
			"new":  {"new", at("192.0.2.3"), true, true, 3, nil},
			"odd":  {"odd", at("2001:db8::1"), true, true, 3, nil},
			"idle": {"idle", at("192.0.2.4"), true, true, 3, nil},
			"gone": {"gone", at("192.0.2.5"), false, false, 3, nil},
			"lost": {"lost", at("127.0.0.1"), true, true, 3, nil},
			"self": {"self", at("10.5.9.9"), true, true, 3, nil},
		},
		Networks: map[string]Shared{"n": {Terms: Terms{Subnets: prefixes("10.5.0.0/16"), Size: BlockSize{24, 64}}, Blocks: map[netip.Prefix]Holding{
			netip.MustParsePrefix("10.5.0.0/16"): {Node: "odd", Revision: 1}, netip.MustParsePrefix("10.6.0.0/24"): {Node: "b", Revision: 1}, block(8): {Node: "lost", Revision: 1},
			block(2): {Node: "a", Revision: 1}, block(0): {Node: "a", Revision: 1}, block(1): {Node: "b", Revision: 1}, block(3): {Node: "old", Revision: 1}, block(4): {Node: "new", Revision: 1},
			block(5): {Node: "odd", Revision: 1}, block(6): {Node: "stray", Revision: 1}, block(7): {Node: "gone", Revision: 1}, block(9): {Node: "self", Revision: 1},
		}}},
	}
	hosts, problems := v.Hosts("n")
	var got []string
	for _, h := range hosts {
		got = append(got, fmt.Sprint(h.Name, h.Blocks))
	}
	want := "[a[10.5.0.0/24 10.5.2.0/24] b[10.5.1.0/24] gone[10.5.7.0/24] new[10.5.4.0/24]]"
	if fmt.Sprint(got) != want {
		t.Errorf("got  %v\nwant %s", got, want)
	}
	if s := strings.Join(problems, "\n"); len(problems) != 7 || !strings.Contains(s, "self has the address 10.5.9.9, which is inside") || !strings.Contains(s, "10.5.0.0/16 of node odd") || !strings.Contains(s, "10.6.0.0/24 of node b") || !strings.Contains(s, "lost has blocks and no address") || !strings.Contains(s, "old has the address 192.0.2.3, which is new's") || !strings.Contains(s, "stray has blocks") || !strings.Contains(s, "odd") {
		t.Errorf("problems:\n%s", s)
	}
	if got := fmt.Sprint(v.Gone()); got != "[gone stray]" {
		t.Errorf("gone: %s", got)
	}
	if got := fmt.Sprint(v.Own("n", "a")); got != "[10.5.0.0/24 10.5.2.0/24]" {
		t.Errorf("a's: %s", got)
	}
}

// Every block is found, by every host that asks, and none twice.
func TestChoose(t *testing.T) {
	s := Shared{Terms: Terms{Size: BlockSize{26, 64}}, Blocks: map[netip.Prefix]Holding{}}
	for _, subnet := range prefixes("10.5.0.0/24", "fd05::/62") {
		for i := range 4 {
			b, err := s.Choose(subnet, fmt.Sprint("host", i))
			if _, taken := s.Blocks[b]; err != nil || taken || !subnet.Contains(b.Addr()) {
				t.Fatalf("%s: %s, %v", subnet, b, err)
			}
			s.Blocks[b] = Holding{}
		}
		if b, err := s.Choose(subnet, "host"); !errors.Is(err, ErrFull) {
			t.Errorf("%s: a fifth block: %s, %v", subnet, b, err)
		}
	}
	if _, err := s.Choose(netip.MustParsePrefix("10.5.0.0/27"), "host"); !errors.Is(err, ErrFull) {
		t.Errorf("of a subnet that is too small: %v", err)
	}
}

// Whether a registry has lost what a host saw depends on both moments.
func TestLost(t *testing.T) {
	at := func(lineage string, generation int64, cluster string, revision int64) Moment {
		return Moment{History: History{lineage, generation, cluster}, Revision: revision}
	}
	was := at("a", 2, "c", 100)
	for name, tt := range map[string]struct {
		now           Moment
		lost, follows bool
	}{
		"later":                {at("a", 2, "c", 200), false, true},
		"the same":             {was, false, true},
		"older copy":           {at("a", 2, "c", 99), true, false},
		"restored":             {at("a", 2, "d", 200), true, false},
		"others have noticed":  {at("a", 3, "c", 200), true, false},
		"wiped":                {at("", 0, "d", 1), true, false},
		"another one's":        {at("b", 7, "d", 1), false, false},
		"older, another one's": {at("b", 1, "c", 1), false, false},
	} {
		if was.Lost(tt.now) != tt.lost || was.Follows(tt.now) != tt.follows {
			t.Errorf("%s: lost %t, follows %t", name, was.Lost(tt.now), was.Follows(tt.now))
		}
		if nothing := (Moment{}); nothing.Lost(tt.now) || nothing.Follows(tt.now) {
			t.Errorf("%s: a host that remembers nothing knows something", name)
		}
	}
	if (Epoch{1, 9}).Compare(Epoch{2, 1}) >= 0 || (Epoch{2, 1}).Compare(Epoch{2, 3}) >= 0 || (Epoch{2, 3}).Compare(Epoch{2, 3}) != 0 {
		t.Error("epochs are not ordered by generation and revision")
	}
}
