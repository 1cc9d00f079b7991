package kernel

import (
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// newConnFor isolates the calling test and opens rtnetlink there.
func newConnFor(t testing.TB) *conn {
	t.Helper()
	lntest.Isolate(t)
	c, err := openConn()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}
