package agent

import (
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/wireguard"
)

// A peer is out of reach once it owes an answer for longer than WireGuard takes, or has sent no
// keepalive for longer than two are lost; one with nothing to say is in reach.
func TestHearing(t *testing.T) {
	t.Parallel()
	const step = 5 // seconds between two looks
	type traffic struct{ sent, received uint64 }
	for name, tt := range map[string]struct {
		kept bool
		// at is what has been sent and received after so many seconds.
		at    func(second uint64) traffic
		until int    // seconds
		want  string // at the end
		no    int    // until when it is in reach, at least, in seconds
	}{
		"silence, and ours are the keepalives": {false, func(s uint64) traffic { return traffic{1000 + s/25*emptyPacket, 900} }, 170, "", 170},
		"data one way, keepalives back":        {false, func(s uint64) traffic { return traffic{s * 1000, s / 10 * emptyPacket} }, 170, "", 170},
		"every other answer is lost":           {false, func(s uint64) traffic { return traffic{s * 1000, s / 20 * emptyPacket} }, 170, "", 170},
		"data without an answer":               {false, func(s uint64) traffic { return traffic{1000 + s*96, 900} }, 40, "no answer from", 25},
		"a handshake without an answer":        {false, func(s uint64) traffic { return traffic{1000 + s/60*148, 900} }, 100, "no answer from", 85},
		"keepalives come":                      {true, func(s uint64) traffic { return traffic{1000, 900 + s/25*emptyPacket} }, 170, "", 170},
		"one keepalive is lost":                {true, func(s uint64) traffic { return traffic{1000, 900 + s/50*emptyPacket} }, 170, "", 170},
		"no keepalive comes":                   {true, func(uint64) traffic { return traffic{1000, 900} }, 75, "no packet from", 65},
		"made anew, and silent": {false, func(s uint64) traffic {
			if s < 20 {
				return traffic{5000, 5000}
			}
			return traffic{148, 0}
		}, 60, "no answer from", 45},
		"made anew, and answers": {false, func(s uint64) traffic {
			if s < 20 {
				return traffic{5000, 5000}
			}
			return traffic{180, 92}
		}, 100, "", 100},
	} {
		start := time.Now()
		var e hearing
		why := ""
		for s := 0; s <= tt.until; s += step {
			now, got := start.Add(time.Duration(s)*time.Second), tt.at(uint64(s))
			p := wireguard.Peer{Handshake: start.Unix(), Sent: got.sent, Received: got.received}
			e.look(p, now)
			if why = e.outOfReach(p, now, tt.kept); why != "" && s < tt.no {
				t.Errorf("%s: %q after %d s", name, why, s)
			}
		}
		if why != tt.want {
			t.Errorf("%s: %q after %d s, want %q", name, why, tt.until, tt.want)
		}
	}
}

// A session that is too old to be used is none.
func TestSessionEnds(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for handshake, want := range map[int64]bool{0: true, now.Unix() - 1: false, now.Unix() - 150: false, now.Unix() - 300: true} {
		p := wireguard.Peer{Handshake: handshake}
		var e hearing
		if e.look(p, now); (e.outOfReach(p, now, false) != "") != want {
			t.Errorf("handshake %d s ago: out of reach is %t", now.Unix()-handshake, !want)
		}
	}
}
