package graph

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"os"
	"strings"
	"testing"
)

// hostsOf are hosts with networks, each of which has so many containers.
func hostsOf(hosts, networks, containers int) (all []Host) {
	for h := range hosts {
		host := Host{Host: fmt.Sprintf("web-%d.example.com", h+1)}
		for n := range networks {
			net := Network{
				Name: []string{"shop", "a-network-whose-name-is-longer-than-there-is-room-for-in-the-picture", "db"}[n%3] + fmt.Sprint(n), Driver: "bridge",
				Bridge: fmt.Sprintf("br-%d", n), Subnets: []string{fmt.Sprintf("10.%d.%d.0/24", 60+n, h), fmt.Sprintf("fd66:%d:%d::/64", n, h)}, Held: uint64(containers), Capacity: 253,
			}
			if n == 0 && hosts > 1 {
				net.Driver, net.Peers = "overlay", []string{"192.0.2.2", "192.0.2.3"}
			}
			for c := range containers {
				net.Containers = append(net.Containers, containerOf(n, h, c))
			}
			host.Networks = append(host.Networks, net)
		}
		all = append(all, host)
	}
	return all
}

func containerOf(n, h, c int) Container {
	out := Container{
		ID: fmt.Sprintf("%02d%02d%060x", n, c, 0xfeedbeef+c), Interface: "eth0",
		Addresses: []string{fmt.Sprintf("10.%d.%d.%d", 60+n, h, c+2), fmt.Sprintf("fd66:%d:%d::%x", n, h, c+2)},
	}
	switch c % 6 {
	case 0:
		out.Name, out.Ports = "web", []string{"8080 → 80/tcp", "203.0.113.7:8443 → 443/tcp"}
	case 1:
		out.Name = "a-container-with-a-very-long-name-indeed"
	case 2:
		out.Name = `<b>&"'`
	case 3:
		out.Problem = "differs from what was made: address 10.66.0.2/24 is missing"
	case 4:
		out.Ports = []string{"1 → 1/tcp", "2 → 2/tcp", "3 → 3/tcp", "4 → 4/tcp", "5 → 5/tcp"}
	}
	return out
}

// box is a rectangle of a picture.
type box struct {
	class      string
	x, y, w, h float64
}

func (b box) overlaps(o box) bool {
	return b.x < o.x+o.w && o.x < b.x+b.w && b.y < o.y+o.h && o.y < b.y+b.h
}

func (b box) holds(o box) bool {
	return b.x <= o.x && b.y <= o.y && o.x+o.w <= b.x+b.w && o.y+o.h <= b.y+b.h
}

// parse returns the rectangles of an SVG, and its texts as such.
func parse(t *testing.T, svg string) (rects, texts []box) {
	t.Helper()
	dec := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := dec.Token()
		if token == nil {
			return rects, texts
		}
		if err != nil {
			t.Fatal(err)
		}
		start, is := token.(xml.StartElement)
		if !is || start.Name.Local != "rect" && start.Name.Local != "text" {
			continue
		}
		b := box{}
		for _, a := range start.Attr {
			if to := map[string]*float64{"x": &b.x, "y": &b.y, "width": &b.w, "height": &b.h}[a.Name.Local]; to != nil {
				if _, err := fmt.Sscan(a.Value, to); err != nil {
					t.Fatal(err)
				}
			}
			if a.Name.Local == "class" {
				b.class = a.Value
			}
		}
		if start.Name.Local == "rect" {
			rects = append(rects, b)
			continue
		}
		var words string
		if err := dec.DecodeElement(&words, &start); err != nil {
			t.Fatal(err)
		}
		wide := letter
		if b.class == "big" {
			wide *= 15.0 / 11
		}
		b.w, b.h = float64(len([]rune(words)))*wide, 11
		b.y -= 10
		texts = append(texts, b)
	}
}

// No card overlaps another, each is in one host, no text overlaps another or leaves its card,
// with three networks of twelve containers, and with three hosts of forty.
func TestPicture(t *testing.T) {
	for name, hosts := range map[string][]Host{
		"3 networks of 12": hostsOf(1, 3, 12), "3 hosts of 40": hostsOf(3, 2, 20), "empty": {{Host: "h"}}, "one network": hostsOf(1, 1, 0), "nothing": nil,
	} {
		t.Run(name, func(t *testing.T) {
			svg := Picture(hosts)
			rects, texts := parse(t, svg)
			var cards, boxes []box
			for _, r := range rects {
				switch {
				case strings.HasPrefix(r.class, "card"):
					cards = append(cards, r)
				case r.class == "host":
					boxes = append(boxes, r)
				}
			}
			want := 0
			for _, h := range hosts {
				for _, n := range h.Networks {
					want += len(n.Containers)
				}
			}
			if len(cards) != want || len(boxes) != len(hosts) {
				t.Fatalf("%d cards of %d, %d hosts of %d", len(cards), want, len(boxes), len(hosts))
			}
			for i, c := range cards {
				for _, o := range cards[:i] {
					if c.overlaps(o) {
						t.Fatalf("%v overlaps %v", c, o)
					}
				}
			}
			for i, a := range texts {
				inside := 0
				for _, b := range boxes {
					if b.holds(a) {
						inside++
					}
				}
				if inside != 1 {
					t.Errorf("text %v is in %d hosts", a, inside)
				}
				for _, c := range cards {
					if c.overlaps(a) && !c.holds(a) {
						t.Errorf("text %v leaves card %v", a, c)
					}
				}
				for _, o := range texts[:i] {
					if a.overlaps(o) {
						t.Fatalf("text %v overlaps %v", a, o)
					}
				}
			}
			if dir := os.Getenv("LIBNET_PICTURES"); dir != "" { // to be looked at
				for ext, text := range map[string]string{".svg": svg, ".html": Page(hosts)} {
					if err := os.WriteFile(dir+"/"+strings.ReplaceAll(name, " ", "-")+ext, []byte(text), 0o644); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

// Whatever a name is, the page has it as text; it loads nothing.
func TestPage(t *testing.T) {
	text := Page(hostsOf(1, 1, 12))
	for _, bad := range []string{"<b>", "src=", "href=", "@import", "url("} {
		if strings.Contains(text, bad) {
			t.Errorf("%q is in the page", bad)
		}
	}
	if !strings.Contains(text, "&lt;b&gt;&amp;") || strings.Contains(text, "@PICTURE@") {
		t.Error("the name is not in it as it is")
	}
}

func TestText(t *testing.T) {
	var out bytes.Buffer
	if err := WriteText(&out, hostsOf(1, 2, 2)); err != nil {
		t.Fatal(err)
	}
	const want = `web-1.example.com
├─ shop0  bridge  br-0  10.60.0.0/24, fd66:0:0::/64  ▇▁▁▁▁▁▁▁ 2 of 253 addresses
│    web                       eth0  10.60.0.2 fd66:0:0::2  8080 → 80/tcp, 203.0.113.7:8443 → 443/tcp
│    a-container-wit…e-indeed  eth0  10.60.0.3 fd66:0:0::3
└─ a-network-whose-name-is-longer-than-there-is-room-for-in-the-picture1  bridge  br-1  10.61.0.0/24, fd66:1:0::/64  ▇▁▁▁▁▁▁▁ 2 of 253 addresses
     web                       eth0  10.61.0.2 fd66:1:0::2  8080 → 80/tcp, 203.0.113.7:8443 → 443/tcp
     a-container-wit…e-indeed  eth0  10.61.0.3 fd66:1:0::3
`
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", &out, want)
	}
	if got := shorten("abcdefghij", 5); len([]rune(got)) != 5 {
		t.Error(got)
	}
}
