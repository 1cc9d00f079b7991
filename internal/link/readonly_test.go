package link

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// A read-only /proc/sys does no harm where the values are right, and the error
// names the one that is not.
func TestReadOnlySysctls(t *testing.T) {
	t.Parallel()
	lntest.IsolateHost(t)
	h, err := openLinks()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.conn.Close)
	readOnlySysctls := func() {
		t.Helper()
		err := errors.Join(unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""),
			unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
		if err != nil {
			t.Fatal(err)
		}
	}
	v4 := Bridge{Name: "br.0", Alias: "libnet:net1/", Gateways: lntest.Prefixes("10.1.0.1/24"), IPv6: host.IPv6Off, ForwardIPv4: true}
	if err := errors.Join(host.SetSysctl(host.IPv6Conf("default", "disable_ipv6"), "1"), h.host.Forward(t.Context(), true, false)); err != nil {
		t.Fatal(err)
	}
	readOnlySysctls()
	if h, err = openLinks(); err != nil { // the first one has seen that they were not
		t.Fatal(err)
	}
	t.Cleanup(h.conn.Close)
	mustBridge(t, h, v4)
	if err := errors.Join(h.host.Forward(t.Context(), true, false), h.VerifyBridge(t.Context(), v4)); err != nil {
		t.Error(err)
	}
	if _, err := h.host.SetRouteLocalnet("br.0", true); err != nil {
		t.Error(err)
	}
	if on, err := h.host.RouteLocalnet("br.0"); !on || err != nil {
		t.Errorf("route_localnet is %t (%v)", on, err)
	}
	const want = "sysctl net.ipv6.conf.all.forwarding is 0, want 1: /proc/sys/net/ipv6/conf/all/forwarding is not writable: read-only file system"
	if err := h.host.Forward(t.Context(), true, true); !errors.Is(err, host.ErrReadOnly) || !errors.Is(err, unix.EROFS) || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
	_, err = h.EnsureBridge(t.Context(), Bridge{Name: "br.1", Gateways: lntest.Prefixes("fd00:1::1/64")})
	const want6 = "bridge br.1: sysctl net.ipv6.conf.br/1.disable_ipv6 is 1, want 0: /proc/sys/net/ipv6/conf/br.1/disable_ipv6 is not writable: read-only file system"
	if !errors.Is(err, host.ErrReadOnly) || err.Error() != want6 {
		t.Errorf("got %v, want %q", err, want6)
	}
}
