package kernel

import (
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// newTunnelsFor isolates the calling test and opens rtnetlink there.
func newTunnelsFor(t testing.TB) *Tunnels {
	t.Helper()
	lntest.Isolate(t)
	c, err := openConn()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return NewTunnels(c)
}
