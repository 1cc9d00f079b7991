package link

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/netns"
)

func TestEnsureBridge(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	b := testBridge()
	b.MTU, b.Promisc = 1400, true
	first := mustBridge(t, h, b)
	if !first.Created || first.MTU != 1400 {
		t.Errorf("got %+v", first)
	}
	if err := h.VerifyBridge(t.Context(), b); err != nil {
		t.Error(err)
	}
	if got, err := host.GetSysctl(host.IPv6Conf("br0", "accept_ra")); got != "0" {
		t.Errorf("accept_ra is %q (%v)", got, err)
	}
	mustAttach(t, h, testLink(newNetns(t)))
	second := mustBridge(t, h, b)
	first.Created = false
	if diff := cmp.Diff(first, second, cmpopts.IgnoreUnexported(BridgeState{})); diff != "" {
		t.Error("second call differs", diff)
	}
}

// TestEnsureBridgeExisting brings bridges of others to what is asked.
func TestEnsureBridgeExisting(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	mustBridge(t, h, Bridge{Name: "br0", MTU: 1400, IPv6: host.IPv6Off})
	if got, _ := host.GetSysctl(host.IPv6Conf("br0", "disable_ipv6")); got != "1" {
		t.Errorf("disable_ipv6 is %s", got)
	}
	b := testBridge()
	b.MTU, b.Promisc = 9000, true
	st := mustBridge(t, h, b)
	if st.Created || st.MTU != 9000 {
		t.Errorf("got %+v", st)
	}
	if err := h.VerifyBridge(t.Context(), b); err != nil {
		t.Error(err)
	}
	d, err := h.conn.Device("br0")
	if err != nil || d.Alias != "" {
		t.Errorf("alias of a bridge we found is %q (%v)", d.Alias, err)
	}
	if st = mustBridge(t, h, Bridge{Name: "br0"}); st.MTU != 9000 {
		t.Errorf("MTU 0 changed the MTU to %d", st.MTU)
	}
}

func TestEnsureBridgeRace(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	n, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			err := n.Do(func() error {
				h, err := openLinks()
				if err != nil {
					return err
				}
				defer h.conn.Close()
				_, err = h.EnsureBridge(t.Context(), testBridge())
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := h.VerifyBridge(t.Context(), testBridge()); err != nil {
		t.Error(err)
	}
}

func TestEnsureBridgeFails(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	st := mustBridge(t, h, Bridge{Name: "br0", Gateways: lntest.Prefixes("10.1.0.1/24", "fd00:1::1/64")})
	dummy := pair{host: "v0", peer: "v1", hostMAC: netlink.RandomMAC(), peerMAC: netlink.RandomMAC(), peerNS: -1, mtu: 1500, master: st.Index}
	if _, err := createPair(h.conn, dummy); err != nil {
		t.Fatal(err)
	}
	before, err := h.conn.Addrs(st.Index, unix.AF_UNSPEC)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		b    Bridge
		want error
		text string
	}{
		{"a veth", Bridge{Name: "v0"}, ErrNotBridge, "veth"},
		{"lo", Bridge{Name: "lo"}, ErrNotBridge, "lo"},
		{"v4 conflict", Bridge{Name: "br0", MTU: 9000, Gateways: lntest.Prefixes("fd00:2::1/64", "10.2.0.1/24")}, ErrAddressConflict,
			"br0 already has an IP address different from 10.2.0.1/24: 10.1.0.1/24"},
		{"v6 overlap", Bridge{Name: "br0", Gateways: lntest.Prefixes("fd00:1::2/64")}, ErrAddressConflict, "fd00:1::1/64"},
		{"VLAN filtering", Bridge{Name: "br0", VLANFiltering: true}, netlink.ErrUnsupported, "CONFIG_BRIDGE_VLAN_FILTERING"},
		{"VLAN filtering, new", Bridge{Name: "br1", VLANFiltering: true}, netlink.ErrUnsupported, "CONFIG_BRIDGE_VLAN_FILTERING"},
		{"VLAN", Bridge{Name: "br1", VLAN: 5, Gateways: lntest.Prefixes("10.9.0.1/24")}, netlink.ErrUnsupported, "CONFIG_BRIDGE_VLAN_FILTERING"},
		{"bad address, new", Bridge{Name: "br1", Gateways: lntest.Prefixes("10.9.0.1/24", "ff02::5/64")}, unix.EADDRNOTAVAIL, "ff02::5/64"},
		{"long name", Bridge{Name: "br34567890123456"}, nil, "interface name"},
	} {
		links := lntest.LinkNames(t)
		_, err := h.EnsureBridge(t.Context(), tt.b)
		if errors.Is(tt.want, netlink.ErrUnsupported) && err == nil {
			continue // this kernel has VLAN filtering
		}
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(fmt.Sprint(err), tt.text) {
			t.Errorf("%s: got %v, want %v with %q", tt.name, err, tt.want, tt.text)
		}
		if got := lntest.LinkNames(t); got != links {
			t.Errorf("%s: links are %q, want %q", tt.name, got, links)
		}
		after, err := h.conn.Addrs(st.Index, unix.AF_UNSPEC)
		if diff := cmp.Diff(before, after, cmp.AllowUnexported(netlink.Address{}), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); err != nil || diff != "" {
			t.Errorf("%s: addresses changed (%v) %s", tt.name, err, diff)
		}
		if d, err := h.conn.Device("br0"); err != nil || d.MTU != st.MTU {
			t.Errorf("%s: MTU is %d (%v), want %d", tt.name, d.MTU, err, st.MTU)
		}
	}
}

func TestForceAddress(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	mustBridge(t, h, Bridge{Name: "br0", Gateways: lntest.Prefixes("10.1.0.1/24", "fd00:1::1/64", "fd00:9::1/64")})
	b := Bridge{Name: "br0", Gateways: lntest.Prefixes("10.2.0.1/24", "fd00:1::2/64"), ForceAddress: true}
	st := mustBridge(t, h, b)
	as, err := h.conn.Addrs(st.Index, unix.AF_UNSPEC)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, a := range as {
		if !a.Prefix.Addr().IsLinkLocalUnicast() {
			got[a.Prefix.String()] = true
		}
	}
	want := map[string]bool{"10.2.0.1/24": true, "fd00:1::2/64": true, "fd00:9::1/64": true}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(BridgeState{})); diff != "" {
		t.Error(diff)
	}
}

func TestPlanAddrs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name                         string
		have, want, missing, replace []string
	}{
		{"empty", nil, []string{"10.0.0.1/8"}, []string{"10.0.0.1/8"}, nil},
		{"there", []string{"10.0.0.1/8"}, []string{"10.0.0.1/8"}, nil, nil},
		{"there among others", []string{"10.0.0.1/8", "192.0.2.1/24"}, []string{"10.0.0.1/8"}, nil, nil},
		{"other mask", []string{"10.0.0.1/16"}, []string{"10.0.0.1/8"}, []string{"10.0.0.1/8"}, []string{"10.0.0.1/16"}},
		{"two wanted", []string{"10.0.0.1/16"}, []string{"10.0.0.1/16", "10.1.0.1/16"}, []string{"10.1.0.1/16"}, nil},
		{"v6 apart", []string{"fd00::1/64"}, []string{"fd01::1/64"}, []string{"fd01::1/64"}, nil},
		{"v6 overlap", []string{"fd00::1/48"}, []string{"fd00::2/64"}, []string{"fd00::2/64"}, []string{"fd00::1/48"}},
		{"v6 link-local", []string{"fe80::5/64"}, []string{"fe80::1/64"}, []string{"fe80::1/64"}, nil},
		{"families apart", []string{"fd00::1/64"}, []string{"10.0.0.1/8"}, []string{"10.0.0.1/8"}, nil},
	} {
		var have []netlink.Address
		for _, p := range lntest.Prefixes(tt.have...) {
			have = append(have, netlink.Address{Prefix: p})
		}
		missing, replace := planAddrs(have, lntest.Prefixes(tt.want...))
		var gone []netip.Prefix
		for _, c := range replace {
			gone = append(gone, c.have.Prefix)
		}
		if fmt.Sprint(missing) != fmt.Sprint(tt.missing) || fmt.Sprint(gone) != fmt.Sprint(tt.replace) {
			t.Errorf("%s: missing %v, replace %v, want %v, %v", tt.name, missing, gone, tt.missing, tt.replace)
		}
	}
}

func TestRemoveBridge(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	b := testBridge()
	st := mustBridge(t, h, b)
	l := testLink(newNetns(t))
	mustAttach(t, h, l)
	if err := h.RemoveBridge(t.Context(), "br0", b.Alias); !errors.Is(err, ErrInUse) {
		t.Errorf("with a port: got %v, want %v", err, ErrInUse)
	}
	mustDetach(t, h, l)
	if err := h.RemoveBridge(t.Context(), "br0", "other"); err != nil {
		t.Error(err)
	}
	if got := lntest.LinkNames(t); got != "lo br0" {
		t.Errorf("with another alias: links are %q", got)
	}
	// The shape of a VLAN interface, which not every kernel can make.
	vlan := pair{host: "vethvlan", peer: "br0.5", hostMAC: netlink.RandomMAC(), peerMAC: netlink.RandomMAC(), peerNS: -1, mtu: 1500, master: st.Index}
	if _, err := createPair(h.conn, vlan); err != nil {
		t.Fatal(err)
	}
	for range 2 { // missing is success
		if err := h.RemoveBridge(t.Context(), "br0", b.Alias); err != nil {
			t.Error(err)
		}
	}
	if got := lntest.LinkNames(t); got != "lo" {
		t.Errorf("links are %q", got)
	}
}

func TestVerifyBridge(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	b := testBridge()
	if err := h.VerifyBridge(t.Context(), b); !errors.Is(err, netlink.ErrNotFound) {
		t.Errorf("missing: got %v", err)
	}
	st := mustBridge(t, h, b)
	b.MTU, b.Promisc, b.VLANFiltering = 9000, true, true
	b.Gateways = append(b.Gateways, lntest.Prefixes("10.7.0.1/24")...)
	if err := h.conn.SetLink(st.Index, 0, unix.IFF_UP); err != nil {
		t.Fatal(err)
	}
	err := fmt.Sprint(h.VerifyBridge(t.Context(), b))
	for _, want := range []string{"is down", "MTU is 1500, want 9000", "promiscuous mode is off", "VLAN filtering is off", "address 10.7.0.1/24 is missing"} {
		if !strings.Contains(err, want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
	if strings.Contains(err, "10.1.0.1") {
		t.Errorf("%q names an address that is there", err)
	}
}
