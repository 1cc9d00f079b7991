package agent

import (
	"time"

	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

// A session that ended is not the only one that is of no use: its packets may be dropped on the
// way, or by the other host. How long a peer may be silent follows from WireGuard's own times
// (the whitepaper, section 6).
const (
	// A packet with data or of a handshake is answered: data within 10 seconds, by an
	// empty packet if there is no other, and a handshake at once, which is tried again every 5
	// seconds. owed is two such answers, and a new handshake.
	owed = 25 * time.Second
	// A peer that begins sends something every Keepalive seconds. quiet is two of these, and the
	// 15 seconds after which WireGuard itself begins a new handshake.
	quiet = (2*overlay.Keepalive + 15) * time.Second
	// emptyPacket is a keepalive, in bytes: header and tag.
	emptyPacket = 32
)

// hearing is what looks at a peer have told.
type hearing struct {
	looked         time.Time // when it was looked at last; zero: never
	at             time.Time // when it was seen first that something had come, last
	asked          time.Time // when it was seen that it has to answer; zero: it owes no answer
	received, sent uint64
}

// look takes down what a device tells. Counters that are less than before are of a peer that was
// made anew.
func (e *hearing) look(p wireguard.Peer, now time.Time) {
	keepalives := 1 + uint64(now.Sub(e.looked)/(overlay.Keepalive*time.Second))
	switch {
	case e.looked.IsZero() || p.Received > e.received || p.Received < e.received && p.Received > 0:
		e.at, e.asked = now, time.Time{}
	case !e.asked.IsZero():
	case p.Sent > e.sent+keepalives*emptyPacket || p.Sent < e.sent && p.Sent > 0:
		e.asked = now
	}
	e.looked, e.received, e.sent = now, p.Received, p.Sent
}

// outOfReach says why there is no session with a peer that could be used; empty: there is one.
// kept says that the peer is the one that sends keepalives.
func (e *hearing) outOfReach(p wireguard.Peer, now time.Time, kept bool) (why string) {
	switch {
	case p.Handshake == 0 || now.Sub(time.Unix(p.Handshake, 0)) > overlay.SessionEnds:
		return "no handshake with"
	case !e.asked.IsZero() && now.Sub(e.asked) > owed:
		return "no answer from"
	case kept && now.Sub(e.at) > quiet:
		return "no packet from"
	}
	return ""
}
