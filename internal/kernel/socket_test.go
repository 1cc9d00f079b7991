package kernel

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
)

// Many goroutines use one Handle at once: each gets its own answers, and all
// that they make is in the Handle's namespace, though their threads are not.
func TestHandleShared(t *testing.T) {
	t.Parallel()
	h := newHandle(t)
	br := mustBridge(t, h, Bridge{Name: "br0"})
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for range 10 {
				if err := pairOnce(h, fmt.Sprintf("p%d", i), br.Index); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := linkNames(t, h); got != "lo br0" {
		t.Errorf("links are %q", got)
	}
	if n := len(h.conn.idle); n < 2 || n > maxIdle+1 {
		t.Errorf("%d sockets are kept, want from 2 to %d", n, maxIdle+1)
	}
	h.Close()
	if _, err := h.conn.device("lo"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: got %v, want %v", err, net.ErrClosed)
	}
}

func pairOnce(h *Handle, name string, bridge int) error {
	p := pair{host: name, peer: name + "x", hostMAC: randomMAC(), peerMAC: randomMAC(), peerNS: -1, mtu: 1500, master: bridge}
	if _, err := createPair(h.conn, p); err != nil {
		return err
	}
	d, err := h.conn.device(name)
	if err != nil {
		return err
	}
	if d.name != name || d.mac.String() != p.hostMAC.String() {
		return fmt.Errorf("asked for %s (%s), got %s (%s)", name, p.hostMAC, d.name, d.mac)
	}
	return h.conn.deleteLink(d.index)
}
