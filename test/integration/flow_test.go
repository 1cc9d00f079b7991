package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

const flowPort = 7007

// within calls fn in the namespace at path, on this thread, which alone sees the
// path.
func within(t *testing.T, path string, fn func() error) (err error) {
	t.Helper()
	lntest.Enter(t, path, func() { err = fn() })
	return err
}

// echoBack sends back what comes, in the namespace at path.
func echoBack(t *testing.T, path string) {
	t.Helper()
	var udp *net.UDPConn
	var tcp *net.TCPListener
	err := within(t, path, func() (err error) {
		if udp, err = net.ListenUDP("udp4", &net.UDPAddr{Port: flowPort}); err != nil {
			return err
		}
		tcp, err = net.ListenTCP("tcp4", &net.TCPAddr{Port: flowPort})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = udp.Close(), tcp.Close() })
	go func() {
		buf := make([]byte, 64)
		for {
			n, from, err := udp.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = udp.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				buf := make([]byte, 64)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					_, _ = c.Write(buf[:n])
				}
			}()
		}
	}()
}

// flow is an established connection on which numbers go and come back.
type flow struct {
	name        string
	c           net.Conn
	answered    atomic.Uint64
	lost, total uint64
	err         error
}

// newFlow opens one of TCP and one of UDP.
func newFlow(t *testing.T, name, from, to string) []*flow {
	t.Helper()
	var all []*flow
	for _, network := range []string{"tcp", "udp"} {
		f := &flow{name: network + " " + name}
		err := within(t, from, func() (err error) {
			f.c, err = lntest.Dial(network, to, lntest.WaitForAnswer)
			return err
		})
		if err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
		t.Cleanup(func() { _ = f.c.Close() })
		// The first datagram may be lost on a new link.
		if _, err := lntest.Exchange(f.c, number(0), lntest.WaitForAnswer); err != nil {
			t.Fatalf("%s: no answer: %v", f.name, err)
		}
		all = append(all, f)
	}
	return all
}

func number(n uint64) string { return fmt.Sprintf("%020d", n) }

// exchange sends a number and waits for it.
func (f *flow) exchange(n uint64) bool {
	want := number(n)
	if _, f.err = f.c.Write([]byte(want)); f.err != nil {
		return false
	}
	buf := make([]byte, 64)
	f.err = f.c.SetReadDeadline(time.Now().Add(lntest.WaitForAnswer))
	for f.err == nil {
		var got int
		if got, f.err = f.c.Read(buf); f.err == nil && string(buf[:got]) == want {
			f.answered.Add(1)
			return true
		}
	}
	return false
}

// prober tries to reach what is closed from a namespace.
type prober struct {
	t    *testing.T
	raw  []*net.UDPConn
	sent atomic.Uint64
	got  atomic.Uint64
	path string
}

func newProber(t *testing.T, path string) *prober { return &prober{t: t, path: path} }

func (p *prober) add(to string) {
	p.t.Helper()
	err := within(p.t, p.path, func() error {
		addr, err := net.ResolveUDPAddr("udp4", to)
		if err != nil {
			return err
		}
		c, err := net.DialUDP("udp4", nil, addr)
		p.raw = append(p.raw, c)
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

// reaches says whether a probe is answered within a generous time.
func (p *prober) reaches() bool {
	for end := time.Now().Add(lntest.WaitForAnswer); time.Now().Before(end); {
		for _, c := range p.raw {
			_, _ = c.Write([]byte("?"))
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			if _, err := c.Read(make([]byte, 8)); err == nil {
				return true
			}
		}
	}
	return false
}

// running is flows and probes under way.
type running struct {
	t      *testing.T
	cancel context.CancelFunc
	done   chan struct{}
	flows  []*flow
	closed *prober
}

// startAll returns once each flow has had an answer, and a probe went to each
// closed address.
func startAll(t *testing.T, flows []*flow, closed *prober) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{t, cancel, make(chan struct{}), flows, closed}
	for _, f := range flows {
		go func() {
			defer func() { r.done <- struct{}{} }()
			for n := uint64(1); ctx.Err() == nil; n++ {
				f.total++
				if !f.exchange(n) {
					f.lost++
					return
				}
			}
		}()
	}
	for _, c := range closed.raw {
		go func() {
			defer func() { r.done <- struct{}{} }()
			for ctx.Err() == nil {
				if _, err := c.Write([]byte("?")); err == nil || errors.Is(err, unix.ECONNREFUSED) {
					closed.sent.Add(1)
				}
				_ = c.SetReadDeadline(time.Now().Add(100 * time.Microsecond))
				if _, err := c.Read(make([]byte, 8)); err == nil {
					closed.got.Add(1)
				}
			}
		}()
	}
	r.await("before the change")
	return r
}

// await waits until each flow had another answer, and every probe was sent again.
func (r *running) await(when string) {
	r.t.Helper()
	end := time.Now().Add(4 * lntest.WaitForAnswer)
	for _, f := range r.flows {
		for had := f.answered.Load(); f.answered.Load() < had+3; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				r.t.Errorf("%s: %s: no more answers: %v", when, f.name, f.err)
				return
			}
		}
	}
	want := r.closed.sent.Load() + uint64(len(r.closed.raw))*3
	for ; r.closed.sent.Load() < want && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
}

func (r *running) stop() {
	r.t.Helper()
	r.await("after the change")
	r.cancel()
	for range len(r.flows) + len(r.closed.raw) {
		<-r.done
	}
	for _, f := range r.flows {
		if f.lost > 0 {
			r.t.Errorf("%s: %d of %d lost: %v", f.name, f.lost, f.total, f.err)
		}
	}
	if got := r.closed.got.Load(); got > 0 {
		r.t.Errorf("%d of %d probes of what is closed were answered", got, r.closed.sent.Load())
	}
	r.t.Logf("%d flows, %d probes of closed networks", len(r.flows), r.closed.sent.Load())
}
