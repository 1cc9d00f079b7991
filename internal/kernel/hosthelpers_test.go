package kernel

import (
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// newHostFor isolates the calling test and opens rtnetlink there.
func newHostFor(t testing.TB) *Host {
	t.Helper()
	lntest.Isolate(t)
	c, err := openConn()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return NewHost(c)
}
