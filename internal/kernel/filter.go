package kernel

import (
	"errors"
	"fmt"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
)

// Filter has a program of tc look at the packets of a link; see netlink.Conn.
func (h *Handle) Filter(index, program int, f netlink.Filter) error {
	return h.conn.Filter(index, program, f)
}

// Filtered says whether a filter is at a link.
func (h *Handle) Filtered(index int, f netlink.Filter) (bool, error) {
	return h.conn.Filtered(index, f)
}

// VXLAN reads a VXLAN device; netlink.ErrNotFound if there is none. The uplink is the link that
// it was made for, or that has its local address; 0: there is none.
func (h *Handle) VXLAN(name string) (index, uplink int, x netlink.VXLAN, err error) {
	d, err := h.conn.Device(name)
	if err != nil {
		return 0, 0, x, err
	}
	if d.VXLAN == nil {
		return 0, 0, x, fmt.Errorf("%s is a %s link, want vxlan", name, d.Kind)
	}
	if uplink = d.VXLAN.Lower; uplink == 0 {
		own, err := host.OwnAddrs(h.conn, netlink.Family(d.VXLAN.Local))
		if err != nil {
			return 0, 0, x, err
		}
		uplink = own[d.VXLAN.Local]
	}
	return d.Index, uplink, *d.VXLAN, nil
}

// HasLink says whether there is a link of that index.
func (h *Handle) HasLink(index int) (bool, error) {
	_, err := h.conn.DeviceByIndex(index)
	if errors.Is(err, netlink.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}
