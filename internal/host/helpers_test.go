package host

import (
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/procfs"
)

// newHost isolates the calling test and opens rtnetlink there.
func newHost(t testing.TB) *Host {
	t.Helper()
	lntest.Isolate(t)
	c, err := netlink.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	proc := procfs.New()
	t.Cleanup(proc.Close)
	return New(c, proc)
}
