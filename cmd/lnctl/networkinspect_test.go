package main

import (
	"strings"
	"testing"
)

// The gateway priority of attachments is shown where one has any.
func TestInspectPriority(t *testing.T) {
	d := networkDetail{Attachments: []attachment{{Container: "c1", Interface: "eth0"}, {Container: "c2", Interface: "eth0"}}}
	shown := func() string {
		var out strings.Builder
		if err := d.write(&out); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if s := shown(); strings.Contains(s, "PRIORITY") {
		t.Errorf("nothing has a priority:\n%s", s)
	}
	d.Attachments[1].GwPriority = -7
	if s := shown(); !strings.Contains(s, "GATEWAY PRIORITY") || !strings.Contains(s, "-7") {
		t.Errorf("c2 has one:\n%s", s)
	}
}
