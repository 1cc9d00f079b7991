package ruleset

import (
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
)

func FuzzParseComment(f *testing.F) {
	f.Add(FormatComment("net/abc/eth0"))
	f.Add([]byte{1, 2, 0, 0, 0, 3, 'a', 'b', 0})
	f.Add([]byte{0, 200, 'a'})
	f.Fuzz(func(t *testing.T, b []byte) {
		if s := ParseComment(b); len(s) > 255 {
			t.Errorf("comment of %d bytes", len(s))
		}
		if len(b) <= firewall.MaxComment {
			s := strings.Trim(string(b), "\x00")
			if got := ParseComment(FormatComment(s)); got != s {
				t.Errorf("got %q, want %q", got, s)
			}
		}
	})
}
