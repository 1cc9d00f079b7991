package iptables

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// serve answers in the namespace with the port that was asked and the source
// that it sees, "4711 192.0.2.2".
func (l *lab) serve(path string, port int) {
	l.t.Helper()
	var udp *net.UDPConn
	var tcp *net.TCPListener
	l.must(lntest.In(l.t, path, func() (err error) {
		if udp, err = net.ListenUDP("udp", &net.UDPAddr{Port: port}); err != nil {
			return err
		}
		tcp, err = net.ListenTCP("tcp", &net.TCPAddr{Port: port})
		return err
	}))
	answer := func(from netip.AddrPort) []byte { return fmt.Appendf(nil, "%d %s", port, from.Addr().Unmap()) }
	l.t.Cleanup(func() { _, _ = udp.Close(), tcp.Close() })
	go func() {
		buf := make([]byte, 64)
		for {
			_, from, err := udp.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = udp.WriteToUDPAddrPort(answer(from), from)
		}
	}()
	go func() {
		for {
			c, err := tcp.AcceptTCP()
			if err != nil {
				return
			}
			_, _ = c.Write(answer(c.RemoteAddr().(*net.TCPAddr).AddrPort()))
			_ = c.Close()
		}
	}()
}

// probe is a question over TCP and UDP and its answer: the source that the
// server sees, after the port if it is not servicePort; empty: none comes.
type probe struct{ from, to, want string }

const (
	waitForAnswer = 5 * time.Second
	waitForNone   = 300 * time.Millisecond
)

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
				want, patience := p.want, waitForAnswer
				if want == "" {
					patience = waitForNone
				} else if !strings.Contains(want, " ") {
					want = fmt.Sprintf("%d %s", servicePort, want)
				}
				got, err := l.ask(network, p.from, p.to, patience)
				if got != want {
					l.t.Errorf("%s from %s to %s: answer %q (%v), want %q", network, names[p.from], p.to, got, err, want)
				}
			})
		}
	}
	wg.Wait()
}

func (l *lab) ask(network, from, to string, patience time.Duration) (answer string, err error) {
	err = lntest.In(l.t, from, func() error {
		d := net.Dialer{Timeout: patience}
		c, err := d.Dial(network, to)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		answer, err = lntest.Exchange(c, "?", patience)
		return err
	})
	return answer, err
}

// ping returns whether an echo request is answered.
func (l *lab) ping(from, to string, patient bool) bool {
	l.t.Helper()
	network, request, reply := "ip4:icmp", []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}, byte(0)
	if netip.MustParseAddr(to).Is6() { // the kernel fills in the checksum
		network, request, reply = "ip6:ipv6-icmp", []byte{128, 0, 0, 0, 0, 0, 0, 0}, 129
	}
	patience := waitForNone
	if patient {
		patience = waitForAnswer
	}
	err := lntest.In(l.t, from, func() error {
		c, err := net.DialIP(network, nil, &net.IPAddr{IP: net.ParseIP(to)})
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		err = c.SetDeadline(time.Now().Add(patience))
		if err == nil {
			_, err = c.Write(request)
		}
		buf := make([]byte, 64)
		for err == nil {
			if _, _, err = c.ReadFromIP(buf); err == nil && buf[0] == reply {
				return nil
			}
		}
		return err
	})
	return err == nil
}
