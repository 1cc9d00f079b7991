package integration

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// The ports of the container: of probes, each a flow of its own, and of the flow
// from before.
const churnPort, beforePort = 81, 82

// churnKinds is how many kinds of probes there are: two senders, two families, UDP
// and TCP, and the flow from before in both families from both.
const churnKinds = 2 * 2 * 3

// flood is what is sent to the container's addresses.
type flood struct {
	targets []netip.Addr
	sent    atomic.Int64
}

// goOn waits until some more probes of every sender are out.
func (f *flood) goOn(t testing.TB) {
	t.Helper()
	before := f.sent.Load()
	for end := time.Now().Add(2 * lntest.WaitForAnswer); f.sent.Load() < before+64; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no probe is sent any more")
		}
	}
}

// start sends from namespaces until stop is called.
func (l *matrixLab) start(f *flood, from ...string) (stop func()) {
	l.t.Helper()
	done := make(chan struct{})
	var wg sync.WaitGroup
	for _, client := range from {
		var senders []*sender
		l.in(netnsPath(client), func() {
			for _, to := range f.targets {
				for _, protocol := range []int{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
					senders = append(senders, l.sender(l.addressOf(client, to.Is6()), to, protocol))
				}
			}
		})
		wg.Go(func() {
			for n := uint16(0); ; n++ {
				for _, s := range senders {
					f.sent.Add(int64(s.send(n)))
				}
				select {
				case <-done:
					return
				default:
				}
				if n%4 == 0 {
					time.Sleep(time.Millisecond) // the machine has other work, too
				}
			}
		})
		l.t.Cleanup(func() {
			for _, s := range senders {
				_ = unix.Close(s.fd)
			}
		})
	}
	var once sync.Once
	stop = func() { once.Do(func() { close(done); wg.Wait() }) }
	l.t.Cleanup(stop)
	return stop
}

// sender has a raw socket: it needs none for each flow.
type sender struct {
	fd       int
	from, to netip.Addr
	protocol int
}

func (l *matrixLab) sender(from, to netip.Addr, protocol int) *sender {
	l.t.Helper()
	family := unix.AF_INET
	if to.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	l.check(err)
	if to.Is6() { // where the kernel has to write the checksum
		at := 6
		if protocol == unix.IPPROTO_TCP {
			at = 16
		}
		l.check(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_CHECKSUM, at))
	}
	return &sender{fd, from, to, protocol}
}

// send sends the n-th probe, and with UDP one more of the flow from before. What
// the kernel does not take is no probe.
func (s *sender) send(n uint16) (sent int) {
	probes := [][]byte{s.segment(1024+n%60_000, churnPort)}
	if s.protocol == unix.IPPROTO_UDP {
		probes = append(probes, s.segment(1023, beforePort))
	}
	for _, p := range probes {
		if unix.Sendto(s.fd, p, unix.MSG_DONTWAIT, sockaddr(netip.AddrPortFrom(s.to, 0))) == nil {
			sent++
		}
	}
	return sent
}

// segment is a datagram of UDP (RFC 768), or a SYN of TCP (RFC 9293).
func (s *sender) segment(from, to uint16) []byte {
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from), to)
	if s.protocol == unix.IPPROTO_UDP {
		return append(b, 0, 10, 0, 0, 'l', 'n') // IPv4: without checksum
	}
	b = append(b, 0, 0, 0, 1, 0, 0, 0, 0, 5<<4, 2, 0xff, 0xff, 0, 0, 0, 0)
	if s.to.Is4() {
		pseudo := append(append(append([]byte{}, s.from.AsSlice()...), s.to.AsSlice()...), 0, unix.IPPROTO_TCP, 0, 20)
		binary.BigEndian.PutUint16(b[16:], checksum(append(pseudo, b...)))
	}
	return b
}

// arrivals counts by kind what comes into a namespace, at whatever interface and
// address.
type arrivals struct {
	mu     sync.Mutex
	counts map[string]int
}

func (a *arrivals) all() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.counts)
}

func (l *matrixLab) listen(name string) *arrivals {
	l.t.Helper()
	a := &arrivals{counts: map[string]int{}}
	l.in(netnsPath(name), func() {
		const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network order
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all)
		l.check(err)
		f := os.NewFile(uintptr(fd), "packets of "+name)
		l.t.Cleanup(func() { _ = f.Close() })
		go a.read(f)
	})
	return a
}

func (a *arrivals) read(f *os.File) {
	var buf [256]byte
	for {
		n, err := f.Read(buf[:])
		if errors.Is(err, unix.ENETDOWN) { // the interface went
			continue
		}
		if err != nil {
			return
		}
		if kind := kindOf(buf[:n]); kind != "" {
			a.mu.Lock()
			a.counts[kind]++
			a.mu.Unlock()
		}
	}
}

// kindOf names a packet of the flood; empty: it is none.
func kindOf(b []byte) string {
	if len(b) < 48 {
		b = append(b, make([]byte, 48-len(b))...)
	}
	var protocol byte
	var from netip.Addr
	var rest []byte
	switch b[0] >> 4 {
	case 4:
		protocol, rest = b[9], b[int(b[0]&0xf)*4:]
		from, _ = netip.AddrFromSlice(b[12:16])
	case 6:
		protocol, rest = b[6], b[40:]
		from, _ = netip.AddrFromSlice(b[8:24])
	}
	if len(rest) < 4 || protocol != unix.IPPROTO_UDP && protocol != unix.IPPROTO_TCP {
		return ""
	}
	switch to := binary.BigEndian.Uint16(rest[2:]); to {
	case churnPort, beforePort:
		return fmt.Sprintf("protocol %d from %s to port %d", protocol, from, to)
	}
	return ""
}
