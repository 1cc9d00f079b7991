package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Graph shows what is there and, in red, what check finds; a picture has the hosts of files,
// too, that graph itself wrote.
func TestGraph(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.populate()
	const want = `here
├─ plain  bridge  ln1  10.33.0.0/24  ▇▁▁▁▁▁▁▁ 2 of 253 addresses
│    c2  eth0  10.33.0.2  80 → 80/tcp
│    c3  eth0  10.33.0.3
└─ web  bridge  ln0  10.32.0.0/24, fd32::/64  ▇▁▁▁▁▁▁▁ 2 of 253 addresses
     c1  eth0  10.32.0.2 fd32::2  8080 → 80/tcp, 192.0.2.1:5000-5002 → 6000/udp
     c4  eth0  10.32.0.3 fd32::3  ✗ dead: its network namespace /run/netns/c4 is gone
`
	if got := l.lnctl(exitOK, "graph", "--host", "here"); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	dir := t.TempDir()
	other, picture := filepath.Join(dir, "other.json"), filepath.Join(dir, "hosts.svg")
	l.must(os.WriteFile(other, []byte(l.lnctl(exitOK, "graph", "--host", "other", "-o", "json")), 0o600))
	l.nft("", "delete", "table", "inet", "libnet")
	l.lnctl(exitOK, "graph", "--host", "here", "--with", other, "-f", "svg", "--file", picture)
	svg, err := os.ReadFile(picture)
	l.must(err)
	for text, times := range map[string]int{`class="host"`: 2, ">here</text>": 1, ">other</text>": 1, "8080→80/tcp</text>": 2, "✗ differs from what was": 3} {
		if got := strings.Count(string(svg), text); got != times {
			t.Errorf("%q is in the picture %d times, want %d", text, got, times)
		}
	}
	if got := l.lnctl(exitOK, "graph", "--only-with", "--with", other, "-f", "html"); !strings.HasPrefix(got, "<!DOCTYPE html>") || strings.Contains(got, ">here</text>") {
		t.Errorf("page: %.100s", got)
	}
	l.must(os.WriteFile(other, []byte("{}"), 0o600))
	for args, want := range map[string]string{"--with " + other: "want what lnctl graph -o json printed", "-f pdf": "want text, svg or html"} {
		code := exitProblem
		if strings.HasPrefix(args, "-f") {
			code = exitUsage
		}
		if got := l.lnctl(code, append([]string{"graph"}, strings.Fields(args)...)...); !strings.Contains(got, want) {
			t.Errorf("%s: %s", args, got)
		}
	}
}
