package nft

import (
	"errors"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// A network of very many hosts is looked at whole: of a thousand elements one
// that another program deleted is missed and put back, and one that another network
// has is taken over.
func TestManyVTEPs(t *testing.T) {
	t.Parallel()
	f := start(t)
	mac := func(i int) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)} }
	n := firewall.Network{Name: "net1", Bridge: "br0", Tunnel: "vx0"}
	for i := range 1000 {
		n.VTEPs = append(n.VTEPs, mac(i))
	}
	mustApply(t, f, n, firewall.Endpoint{})
	mustVerify(t, f, n, firewall.Endpoint{})
	if out, err := exec.Command("nft", "delete", "element", "inet", "libnet", "vteps", `{ "vx0" . `+mac(777).String()+` }`).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	err := f.Verify(t.Context(), n, firewall.Endpoint{})
	if !errors.Is(err, firewall.ErrMissing) || !strings.Contains(err.Error(), mac(777).String()) || strings.Count(err.Error(), "\n") > 0 {
		t.Errorf("one element deleted: %v", err)
	}
	mustApply(t, f, n, firewall.Endpoint{})
	mustVerify(t, f, n, firewall.Endpoint{})
	mustApply(t, f, firewall.Network{Name: "net2", Bridge: "br0", Tunnel: "vx0", VTEPs: n.VTEPs[:1]}, firewall.Endpoint{})
	if err := f.Verify(t.Context(), n, firewall.Endpoint{}); !errors.Is(err, firewall.ErrConflict) {
		t.Errorf("another network's element: %v, want ErrConflict", err)
	}
	mustApply(t, f, n, firewall.Endpoint{})
	mustVerify(t, f, n, firewall.Endpoint{})
}
