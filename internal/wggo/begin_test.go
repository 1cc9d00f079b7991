package wggo

import (
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

// A handshake begins at once with the peers that have a keepalive interval, in whatever order
// they are given, and with no other.
func TestBegins(t *testing.T) {
	lntest.Isolate(t)
	dir := t.TempDir()
	dev, err := Start("wg0", filepath.Join(dir, "s"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	private := wireguard.Clamp([32]byte(newKey(t).Bytes()))
	change := wireguard.Change{PrivateKey: &private}
	begins := make([]bool, 8)
	var ends []*net.UDPConn
	for i := range begins {
		begins[i] = i%3 == 0
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		p := wireguard.Peer{PublicKey: wireguard.Key(newKey(t).PublicKey().Bytes()), Endpoint: c.LocalAddr().(*net.UDPAddr).AddrPort()}
		if begins[i] {
			p.Keepalive = 25
		}
		change.Set, ends = append(change.Set, p), append(ends, c)
	}
	if err := (wireguard.Device{Name: "wg0", Socket: filepath.Join(dir, "s")}).Change(change); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} { // those that get one first
		for i, c := range ends {
			if begins[i] == want && gets(t, c, want) != want {
				t.Errorf("peer %d: a handshake began %v, want %v", i, !want, want)
			}
		}
	}
}

// gets says whether a packet comes; want is whether one is expected.
func gets(t *testing.T, c *net.UDPConn, want bool) bool {
	t.Helper()
	patience := lntest.WaitForNone
	if want {
		patience = lntest.WaitForAnswer
	}
	err := c.SetReadDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = c.Read(make([]byte, 2048))
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return err == nil
}

func newKey(t *testing.T) *ecdh.PrivateKey {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
