package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Without a command lnctl says where the host stands, and how much doctor finds.
func TestStatus(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if got := l.lnctl(exitOK); !strings.Contains(got, "no network yet") || !strings.Contains(got, "✓ no problems") || !strings.Contains(got, "no ln-agent") {
		t.Errorf("an empty host: %s", got)
	}
	l.populate()
	node, err := os.Hostname()
	l.must(err)
	const table = `NETWORK  DRIVER  SUBNETS                  ENDPOINTS   PORTS  ADDRESSES USED
plain    bridge  10.33.0.0/24             2           1      ▇▁▁▁▁▁▁▁ 2 of 253
web      bridge  10.32.0.0/24, fd32::/64  2 (1 dead)  2      ▇▁▁▁▁▁▁▁ 2 of 253
`
	got := l.lnctl(exitOK, "status")
	if !strings.HasPrefix(got, fmt.Sprintf("%s · libnet %s · kernel ", node, version)) || !strings.Contains(got, "\n\n"+table+"\n✗ 1 found by lnctl doctor; the first: c4 eth0 in network") {
		t.Errorf("status: %s", got)
	}
	if again := l.lnctl(exitOK); again != got {
		t.Errorf("without a command: %s", again)
	}
}
