package engine

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
)

// A container that sends without a source, as a DHCP client does, reaches its neighbours, and of
// the host no socket if its network is isolated; also where br_netfilter shows the host the
// packets that pass the bridge.
func TestIsolatedWithoutSource(t *testing.T) {
	t.Parallel()
	for _, backend := range []model.Backend{model.BackendNFTables, model.BackendIPTables} {
		for _, isolated := range []bool{false, true} {
			h := newHost(t)
			ctx := context.Background()
			err := lntest.Sysctl("bridge/bridge-nf-call-iptables", "1")
			if err != nil && !errors.Is(err, os.ErrNotExist) { // without the module
				t.Fatal(err)
			}
			cfg := model.NetworkConfig{Bridge: "iso", Backend: backend}
			if isolated {
				cfg.GatewayModeIPv4, cfg.GatewayModeIPv6 = model.GatewayIsolated, model.GatewayIsolated
			}
			n, err := h.NewNetwork(ctx, "bridge", "net1", WithConfig(cfg))
			must(t, err)
			a, b := h.attach(n, "a"), h.attach(n, "b")
			host, beside := listenAll(t, "/proc/thread-self/ns/net"), listenAll(t, b.Netns())
			for _, to := range []string{"255.255.255.255", "224.0.0.1"} {
				send := func(text string) func() error {
					return func() (err error) {
						lntest.Enter(t, a.Netns(), func() { err = sendWithoutSource(to, text) })
						return err
					}
				}
				if got, err := lntest.Heard(beside, to, lntest.WaitForAnswer, send(to)); !got || err != nil {
					t.Errorf("%s, isolated %t, to %s: the neighbour has not got it", backend, isolated, to)
				}
				patience := lntest.WaitForAnswer
				if isolated {
					patience = lntest.WaitForNone
				}
				if got, err := lntest.Heard(host, to+" once more", patience, send(to+" once more")); got == isolated || err != nil {
					t.Errorf("%s, isolated %t, to %s: the host got it: %t", backend, isolated, to, got)
				}
			}
			must(t, a.Verify(ctx))
			must(t, n.Remove(ctx, a.ID()))
			must(t, n.Remove(ctx, b.ID()))
			must(t, n.Delete(ctx))
		}
	}
}

func listenAll(t *testing.T, ns string) (in *net.UDPConn) {
	t.Helper()
	lntest.Enter(t, ns, func() {
		var err error
		in, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 5000})
		must(t, err)
	})
	t.Cleanup(func() { _ = in.Close() })
	return in
}

// sendWithoutSource sends a datagram by eth0, which has no address.
func sendWithoutSource(to, text string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1), unix.BindToDevice(fd, "eth0"),
		unix.Sendto(fd, []byte(text), 0, &unix.SockaddrInet4{Addr: [4]byte(net.ParseIP(to).To4()), Port: 5000}))
}
