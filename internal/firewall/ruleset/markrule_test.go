package ruleset

import (
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// ReadMark reads what a rule's comment says, and nothing else.
func TestReadMark(t *testing.T) {
	mark := func(value, mask uint32) MarkRule {
		return MarkRule{Bridge: "br0", Mark: firewall.Mark{Value: value, Mask: mask}}
	}
	for comment, want := range map[string]MarkRule{
		"x br0 0x1/0xff":                 mark(1, 0xff),
		"a b br0 0xffffffff/0x0":         mark(0xffffffff, 0),
		"x br0 0x1":                      {},
		"x br0 1/0xff":                   {},
		"x br0 0x1/0x":                   {},
		"x br0 0x100000000/0x1":          {},
		"br0 0x1/0xff":                   {},
		"x a-name-far-too-long 0x1/0xff": {},
	} {
		got, ok := ReadMark(comment)
		if ok != (want.Bridge != "") || ok && got != want {
			t.Errorf("%q: %+v, %v, want %+v", comment, got, ok, want)
		}
	}
}
