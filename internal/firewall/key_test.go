package firewall

import (
	"strings"
	"testing"
)

func TestKey(t *testing.T) {
	long := strings.Repeat("n", 60) + "/" + strings.Repeat("c", 64) + "/eth"
	for _, owner := range []string{"", "net/abc/eth0", long[:127], long + "0", long + "1"} {
		got := Key(owner)
		if len(got) > MaxComment || Key(got) != got {
			t.Errorf("Key(%q) is %q (%d bytes), its Key %q", owner, got, len(got), Key(got))
		}
		if len(owner) <= MaxComment && got != owner {
			t.Errorf("Key(%q) is %q, want it unchanged", owner, got)
		}
		if !strings.HasPrefix(owner, got[:min(len(got), 94)]) {
			t.Errorf("Key(%q) is %q, which begins otherwise", owner, got)
		}
	}
	if Key(long+"0") == Key(long+"1") {
		t.Error("two owners have one key")
	}
}
