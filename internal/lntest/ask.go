package lntest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Short enough for a test that waits for nothing, long enough on a slow machine:
// whatever a test waits for comes in milliseconds on an idle one.
const (
	WaitForAnswer = 30 * time.Second
	WaitForNone   = 300 * time.Millisecond
)

// Await calls done again and again until it says true; false: it does not within patience.
func Await(patience time.Duration, done func() bool) bool {
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if done() {
			return true
		}
		if !time.Now().Before(end) {
			return false
		}
	}
}

// Dial connects, and again where a neighbour is not found, until patience is over. The
// kernel brings a new link into use in its own time, on a busy machine seconds late, and
// drops what is sent by it until then.
func Dial(network, to string, patience time.Duration) (c net.Conn, err error) {
	end := time.Now().Add(patience)
	for {
		d := net.Dialer{Deadline: end, FallbackDelay: -1}
		if c, err = d.Dial(network, to); !errors.Is(err, unix.EHOSTUNREACH) || !time.Now().Before(end) {
			return c, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Heard says whether a datagram with this text comes within patience. It is sent first,
// and again every second, as it may be lost on a busy machine. Other datagrams are
// dropped: they may be earlier ones that were sent twice.
func Heard(in net.PacketConn, text string, patience time.Duration, send func() error) (bool, error) {
	_, err := hear(in, text, patience, send)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	return err == nil, err
}

// hear is Heard that returns the source; os.ErrDeadlineExceeded: it has not come.
func hear(in net.PacketConn, text string, patience time.Duration, send func() error) (net.Addr, error) {
	buf := make([]byte, 256)
	for end := time.Now().Add(patience); ; {
		if err := send(); err != nil {
			return nil, err
		}
		if err := in.SetReadDeadline(time.Now().Add(min(patience, time.Second))); err != nil {
			return nil, err
		}
		n, from, err := in.ReadFrom(buf)
		for err == nil && string(buf[:n]) != text {
			n, from, err = in.ReadFrom(buf)
		}
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(end) {
			return from, err
		}
	}
}

// Exchange sends a question and returns the answer that comes within patience.
// A datagram may be lost on a busy machine, so it is sent again every second.
func Exchange(c net.Conn, question string, patience time.Duration) (string, error) {
	again := patience
	if _, datagrams := c.(*net.UDPConn); datagrams {
		again = min(again, time.Second)
	}
	buf := make([]byte, 256)
	for end := time.Now().Add(patience); ; {
		if _, err := c.Write([]byte(question)); err != nil {
			return "", err
		}
		if err := c.SetReadDeadline(time.Now().Add(again)); err != nil {
			return "", err
		}
		n, err := c.Read(buf)
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(end) {
			return string(buf[:n]), err
		}
	}
}

// Ask asks a server of Serve from the namespace at path. Where an answer is waited
// for, a refusal is not taken for the last word: see Dial.
func Ask(t testing.TB, path, network, to string, patience time.Duration) (answer string, err error) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err = In(t, path, func() error {
			answer, err = ask(network, to, max(time.Until(end), time.Millisecond))
			return err
		})
		if err == nil || patience < WaitForAnswer || time.Now().After(end) {
			return answer, err
		}
	}
}

func ask(network, to string, patience time.Duration) (string, error) {
	c, err := Dial(network, to, patience)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	return Exchange(c, "?", patience)
}

// Serve answers every datagram to a port and every connection, in the namespace
// at path, with the port and the source that it sees: "4711 192.0.2.2".
func Serve(t testing.TB, path string, port int) {
	t.Helper()
	var udp *net.UDPConn
	var tcp *net.TCPListener
	err := In(t, path, func() (err error) {
		if udp, err = net.ListenUDP("udp", &net.UDPAddr{Port: port}); err != nil {
			return err
		}
		tcp, err = net.ListenTCP("tcp", &net.TCPAddr{Port: port})
		return err
	})
	if err != nil {
		t.Fatalf("listen to port %d: %v", port, err)
	}
	answer := func(from netip.AddrPort) []byte { return fmt.Appendf(nil, "%d %s", port, from.Addr().Unmap()) }
	t.Cleanup(func() { _, _ = udp.Close(), tcp.Close() })
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
