package life

import (
	"testing"
)

func TestNetnsToken(t *testing.T) {
	ns := NetnsID{Dev: 4, Ino: 4026531840, Cookie: 7}
	for _, want := range []Holder{
		{}, {NetnsID: ns, MountNS: "4026531841", Runtime: "/opt/a:b"}, {NetnsID: ns}, {MountNS: "1", Runtime: "/usr/bin/crio"},
	} {
		if got := ParseToken(want.Token()); got != want {
			t.Errorf("%q became %v, want %v", want.Token(), got, want)
		}
	}
	if got := ParseToken(ns.String()); got != (Holder{NetnsID: ns}) {
		t.Errorf("of before, %q became %v", ns.String(), got)
	}
	if got := (Holder{NetnsID: ns, Runtime: "a\tb"}).Token(); got != ns.String()+"::" {
		t.Errorf("of a name that a lease cannot hold: %q", got)
	}
	for _, s := range []string{"", ":", "::", "1:2", "1:2:x", "1:2:3:4", "-1:2:3", "1:2:x:4:5"} {
		if got := ParseToken(s); got != (Holder{}) {
			t.Errorf("%q became %v, want unknown", s, got)
		}
	}
}
