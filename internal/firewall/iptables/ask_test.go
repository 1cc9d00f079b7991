package iptables

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// probe is a question over TCP and UDP and its answer: the source that the
// server sees, after the port if it is not servicePort; empty: none comes.
type probe struct{ from, to, want string }

// check asks all at once.
func (l *lab) check(probes ...probe) {
	l.t.Helper()
	l.checkOver([]string{"tcp", "udp"}, probes...)
}

func (l *lab) checkOver(networks []string, probes ...probe) {
	l.t.Helper()
	names := map[string]string{l.host: "host", l.a: "a", l.b: "b", l.c: "c", l.out: "out"}
	var wg sync.WaitGroup
	for _, p := range probes {
		for _, network := range networks {
			wg.Go(func() {
				want, patience := p.want, lntest.WaitForAnswer
				if want == "" {
					patience = lntest.WaitForNone
				} else if !strings.Contains(want, " ") {
					want = fmt.Sprintf("%d %s", servicePort, want)
				}
				got, err := lntest.Ask(l.t, p.from, network, p.to, patience)
				if got != want {
					l.t.Errorf("%s from %s to %s: answer %q (%v), want %q", network, names[p.from], p.to, got, err, want)
				}
			})
		}
	}
	wg.Wait()
}

// ping returns whether an echo request is answered.
func (l *lab) ping(from, to string, patient bool) bool {
	l.t.Helper()
	network, request, reply := "ip4:icmp", []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}, byte(0)
	if netip.MustParseAddr(to).Is6() { // the kernel fills in the checksum
		network, request, reply = "ip6:ipv6-icmp", []byte{128, 0, 0, 0, 0, 0, 0, 0}, 129
	}
	patience := lntest.WaitForNone
	if patient {
		patience = lntest.WaitForAnswer
	}
	err := lntest.In(l.t, from, func() error {
		c, err := net.DialIP(network, nil, &net.IPAddr{IP: net.ParseIP(to)})
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		buf := make([]byte, 64)
		for end := time.Now().Add(patience); ; { // again every second: a packet may be lost on a busy machine
			_, err = c.Write(request)
			err = errors.Join(err, c.SetReadDeadline(time.Now().Add(min(patience, time.Second))))
			for err == nil {
				if _, _, err = c.ReadFromIP(buf); err == nil && buf[0] == reply {
					return nil
				}
			}
			if !time.Now().Before(end) {
				return err
			}
		}
	})
	return err == nil
}
