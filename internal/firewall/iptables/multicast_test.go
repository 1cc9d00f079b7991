package iptables

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// A datagram to a group leaves with the source it has.
func TestMasqueradeNotMulticast(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.must(up("lo", "10.99.0.9/32", "fd99::9/128"))
	l.e.Addrs = addrs("10.99.0.9", "fd99::9") // the host's, so that no multicast router is needed
	l.e.Masquerade = firewall.Families{IPv4: true, IPv6: true}
	l.apply(l.n, l.e)
	tests := []struct{ group, from, unicast, host string }{
		{"239.1.2.3", "10.99.0.9", "192.0.2.2", "192.0.2.1"},
		{"ff05::4711", "fd99::9", "fd20::2", "fd20::1"},
	}
	for _, tt := range tests {
		in := l.listenGroup(tt.group)
		if got := l.sourceOf(in, tt.from, tt.group); got != tt.from {
			t.Errorf("to %s: seen as %s, want %s", tt.group, got, tt.from)
		}
		if got := l.sourceOf(in, tt.from, tt.unicast); got != tt.host {
			t.Errorf("to %s: seen as %s, want %s", tt.unicast, got, tt.host)
		}
	}
}

const groupPort = 4799

// listenGroup listens outside to the group and to outside's own addresses.
func (l *lab) listenGroup(group string) *net.UDPConn {
	l.t.Helper()
	var in *net.UDPConn
	l.must(lntest.In(l.t, l.out, func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		in, err = net.ListenMulticastUDP("udp", eth0, &net.UDPAddr{IP: net.ParseIP(group), Port: groupPort})
		return err
	}))
	l.t.Cleanup(func() { _ = in.Close() })
	return in
}

// sourceOf sends one datagram out of the host and returns the source in sees.
func (l *lab) sourceOf(in *net.UDPConn, from, to string) string {
	l.t.Helper()
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}, Control: func(_, _ string, raw syscall.RawConn) error {
		var bindErr error
		err := raw.Control(func(fd uintptr) { bindErr = unix.BindToDevice(int(fd), "out") })
		return errors.Join(err, bindErr)
	}}
	c, err := d.Dial("udp", netip.AddrPortFrom(netip.MustParseAddr(to), groupPort).String())
	l.must(err)
	_, err = c.Write([]byte("!"))
	l.must(errors.Join(err, c.Close(), in.SetDeadline(time.Now().Add(waitForAnswer))))
	_, seen, err := in.ReadFromUDPAddrPort(make([]byte, 8))
	if err != nil {
		l.t.Fatalf("to %s: %v", to, err)
	}
	return seen.Addr().Unmap().WithZone("").String()
}
