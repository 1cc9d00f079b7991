package integration

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

const (
	somethingWait = lntest.WaitForAnswer   // for an answer
	nothingWait   = 250 * time.Millisecond // for none
	resendWait    = 250 * time.Millisecond // for a datagram that may be lost
)

// probe asks one address by one protocol.
type probe struct {
	client, what string // the cell of a table
	protocol     string // "icmp", "tcp" or "udp"
	to           netip.AddrPort
	server       string // the one that is to answer
	want         string // "✓", "M" or "✗"
}

// String tells probes apart.
func (p probe) String() string { return fmt.Sprintf("%s → %s (%s)", p.client, p.what, p.to) }

func (p probe) patience() time.Duration {
	if p.want == "✗" {
		return nothingWait
	}
	return somethingWait
}

// ask runs all probes at once, and those again for which a neighbour that is to answer
// was not found: the kernel brings a new link into use in its own time.
func (l *reachLab) ask(probes []probe) {
	l.t.Helper()
	got := make([]string, len(probes))
	lntest.Await(somethingWait, func() bool {
		return l.askOnce(probes, got) == 0
	})
	l.compare(probes, got)
}

// passes says that the outcome may be another one when the probe is run again.
func (p probe) passes(outcome string) bool {
	return p.want != "✗" && strings.HasSuffix(outcome, unix.EHOSTUNREACH.Error())
}

// askOnce runs the probes without an outcome, or with one that passes, and returns how
// many are to be run again. Sockets are opened from the test's own thread; they stay in
// the namespace they are made in.
func (l *reachLab) askOnce(probes []probe, got []string) (again int) {
	l.t.Helper()
	var wg sync.WaitGroup
	for _, client := range []string{"host", "neighbour", "remote", "attacker", "sibling", "other", "self"} {
		l.in(l.place(client), func() {
			for i, p := range probes {
				if p.client != client || got[i] != "" && !p.passes(got[i]) {
					continue
				}
				s, err := dial(p.protocol, 0, p.to)
				if err != nil {
					got[i] = "✗ " + err.Error()
					continue
				}
				s.words = p.String()
				wg.Go(func() { got[i] = p.outcome(s) })
			}
		})
	}
	wg.Wait()
	for i, p := range probes {
		if p.passes(got[i]) {
			again++
		}
	}
	return again
}

// compare lists what differs, one line for a cell.
func (l *reachLab) compare(probes []probe, got []string) {
	l.t.Helper()
	lines := map[string]string{}
	for i, p := range probes {
		if _, arrived := l.heard.Load(p.String()); arrived && p.protocol == "udp" && strings.HasPrefix(got[i], "✗") {
			got[i] = "arrives, but the answer does not"
		}
		if strings.HasPrefix(got[i], p.want) {
			continue
		}
		lines[p.client+" → "+p.what] += fmt.Sprintf(" %s to %s: %s, want %s;", p.protocol, p.to, got[i], p.want)
	}
	for _, cell := range slices.Sorted(maps.Keys(lines)) {
		l.t.Errorf("%s:%s", cell, lines[cell])
	}
}

func (l *reachLab) place(client string) string {
	switch client {
	case "host":
		return ""
	case "self":
		return netnsPath("server")
	}
	return netnsPath(client)
}

// outcome is the cell that a probe has found, with the reason for a "✗".
func (p probe) outcome(s *socket) string {
	defer func() { _ = s.Close() }()
	said, err := s.exchange(p.patience())
	if err != nil {
		return "✗ " + err.Error()
	}
	if p.protocol == "icmp" {
		return "✓"
	}
	name, seen, _ := strings.Cut(said, " ")
	if name != p.server {
		return fmt.Sprintf("%q answers, not %q", name, p.server)
	}
	switch {
	case seen == s.local.String():
		return "✓"
	case hostHas(seen):
		return "M"
	}
	return fmt.Sprintf("seen as %s, sent from %s", seen, s.local)
}

// hostHas says if an address is one of the host's.
func hostHas(addr string) bool {
	for _, a := range []string{
		"192.0.2.1", specific4, reachNetworks[0].gateway4, reachNetworks[1].gateway4,
		"2001:db8::1", specific6, reachNetworks[0].gateway6, reachNetworks[1].gateway6,
	} {
		if a == addr {
			return true
		}
	}
	return false
}

// socket is a connected socket of the namespace it was made in, whichever
// thread reads it.
type socket struct {
	*os.File
	protocol string
	is6      bool
	local    netip.Addr
	words    string // what datagrams say
}

// dial starts to connect from a local port, and does not wait. Port 0: the kernel takes any,
// which may be one that an earlier socket had: the packets then belong to a flow that the
// host has let through before.
func dial(protocol string, from uint16, to netip.AddrPort) (*socket, error) {
	family, kind, number := unix.AF_INET, unix.SOCK_STREAM, 0
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	switch {
	case protocol == "udp":
		kind = unix.SOCK_DGRAM
	case protocol == "icmp" && to.Addr().Is6():
		kind, number = unix.SOCK_RAW, unix.IPPROTO_ICMPV6
	case protocol == "icmp":
		kind, number = unix.SOCK_RAW, unix.IPPROTO_ICMP
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, number)
	if err != nil {
		return nil, err
	}
	s := &socket{File: os.NewFile(uintptr(fd), protocol+" "+to.String()), protocol: protocol, is6: to.Addr().Is6()}
	if from != 0 {
		all := pick(s.is6, "::", "0.0.0.0")
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(all, from))); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return nil, errors.Join(err, s.Close())
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	switch a := local.(type) {
	case *unix.SockaddrInet4:
		s.local = netip.AddrFrom4(a.Addr)
	case *unix.SockaddrInet6:
		s.local = netip.AddrFrom16(a.Addr)
	}
	return s, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// exchange returns what the other side says. A connected socket hears no sender
// but the address it is connected to.
func (s *socket) exchange(patience time.Duration) (string, error) {
	end := time.Now().Add(patience)
	if s.protocol == "tcp" {
		if err := s.SetDeadline(end); err != nil {
			return "", err
		}
		said, err := io.ReadAll(s)
		return string(said), err
	}
	for {
		if _, err := s.Write(s.question()); err != nil {
			return "", err
		}
		if err := s.SetReadDeadline(earlier(end, time.Now().Add(resendWait))); err != nil {
			return "", err
		}
		said, err := s.hear()
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(end) {
			return said, err
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// question is an ICMP echo request (RFC 792, RFC 4443), or the words.
func (s *socket) question() []byte {
	msg := []byte{8, 0, 0, 0, 0x6c, 0x6e, 0, 0} // identifier "ln"
	switch {
	case s.protocol != "icmp":
		return []byte(s.words)
	case s.is6:
		msg[0] = 128 // the checksum is the kernel's work
	default:
		sum := checksum(msg)
		msg[2], msg[3] = byte(sum>>8), byte(sum)
	}
	return msg
}

// hear reads until there is an answer.
func (s *socket) hear() (string, error) {
	var buf [1500]byte
	for {
		n, err := s.Read(buf[:])
		if err != nil || s.protocol != "icmp" {
			return string(buf[:n]), err
		}
		msg := buf[:n]
		if !s.is6 {
			msg = msg[int(msg[0]&0xf)*4:] // after the IP header
		}
		if msg[0] == 0 && !s.is6 || msg[0] == 129 && s.is6 {
			return "", nil
		}
	}
}

// answer has TCP and UDP ports of a namespace answer with its name and the
// client's address, until the test ends.
func (l *reachLab) answer(name string, ports ...int) {
	l.t.Helper()
	for _, port := range ports {
		var listener *net.TCPListener
		var conn *net.UDPConn
		l.in(netnsPath(name), func() {
			var err error
			listener, err = net.ListenTCP("tcp", &net.TCPAddr{Port: port})
			l.check(err)
			conn, err = net.ListenUDP("udp", &net.UDPAddr{Port: port})
			l.check(err)
		})
		l.t.Cleanup(func() { _, _ = listener.Close(), conn.Close() })
		go answerTCP(name, listener)
		go l.answerUDP(name, conn)
	}
}

func answerTCP(name string, l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return
		}
		from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		_, _ = fmt.Fprint(c, name, " ", from)
		_ = c.Close()
	}
}

// answerUDP also keeps what has arrived: the answer may be lost on its own way.
func (l *reachLab) answerUDP(name string, c *net.UDPConn) {
	var buf [128]byte
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf[:])
		if err != nil {
			return
		}
		l.heard.Store(string(buf[:n]), true)
		_, _ = c.WriteToUDPAddrPort(fmt.Append(nil, name, " ", from.Addr().Unmap()), from)
	}
}
