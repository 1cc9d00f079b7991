package iptables

import (
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// A datagram to a group leaves with the source it has.
func TestMasqueradeNotMulticast(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.must(lntest.Up("lo", "10.99.0.9/32", "fd99::9/128"))
	l.e.Addrs = addrs("10.99.0.9", "fd99::9") // the host's, so that no multicast router is needed
	l.e.Masquerade = firewall.Families{IPv4: true, IPv6: true}
	l.apply(l.n, l.e)
	tests := []struct{ group, from, unicast, host string }{
		{"239.1.2.3", "10.99.0.9", "192.0.2.2", "192.0.2.1"},
		{"ff05::4711", "fd99::9", "fd20::2", "fd20::1"},
	}
	for _, tt := range tests {
		in := lntest.ListenGroup(t, l.out, tt.group, 4799)
		if got := lntest.SourceOf(t, in, tt.from, "out", tt.group); got != tt.from {
			t.Errorf("to %s: seen as %s, want %s", tt.group, got, tt.from)
		}
		if got := lntest.SourceOf(t, in, tt.from, "out", tt.unicast); got != tt.host {
			t.Errorf("to %s: seen as %s, want %s", tt.unicast, got, tt.host)
		}
	}
}
