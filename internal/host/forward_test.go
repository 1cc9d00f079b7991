package host

import (
	"errors"
	"net"
	"testing"

	vnl "github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/netlink"
)

func TestForward(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if v4, v6, err := h.Forwarding(); v4 || v6 || err != nil {
		t.Fatalf("got %t, %t, %v in a new namespace", v4, v6, err)
	}
	for _, tt := range []struct{ v4, v6 bool }{{false, false}, {true, false}, {true, true}, {false, false}} {
		if err := h.Forward(t.Context(), tt.v4, tt.v6); err != nil {
			t.Fatal(err)
		}
	}
	if v4, v6, err := h.Forwarding(); !v4 || !v6 || err != nil {
		t.Errorf("got %t, %t, %v", v4, v6, err)
	}
}

func TestUplinkMTU(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if _, err := h.UplinkMTU(); !errors.Is(err, netlink.ErrNotFound) {
		t.Errorf("got %v, want %v", err, netlink.ErrNotFound)
	}
	up0 := &vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: "up0", MTU: 1450}}
	if err := errors.Join(lntest.AddLink(up0, "192.0.2.2/24", "2001:db8::2/64"), vnl.LinkSetUp(up0)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		r    vnl.Route
		want int
	}{
		{vnl.Route{Dst: lntest.CIDR("::/0"), Gw: net.ParseIP("2001:db8::1")}, 1450},
		{vnl.Route{Dst: lntest.CIDR("0.0.0.0/0"), Gw: net.ParseIP("192.0.2.1"), MTU: 1400}, 1400},
	} {
		if err := vnl.RouteAdd(&tt.r); err != nil {
			t.Fatal(err)
		}
		if got, err := h.UplinkMTU(); got != tt.want || err != nil {
			t.Errorf("got %d, %v, want %d", got, err, tt.want)
		}
	}
}
