package netlink

import (
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// newConn isolates the calling test and opens rtnetlink there.
func newConn(t testing.TB) *Conn {
	t.Helper()
	lntest.Isolate(t)
	c, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}
