package kernel

import (
	"errors"

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

// LinkIndex returns the index of a link; netlink.ErrNotFound if there is none.
func (h *Handle) LinkIndex(name string) (int, error) {
	d, err := h.conn.Device(name)
	if err != nil {
		return 0, err
	}
	return d.Index, nil
}

// HasLink says whether there is a link of that index.
func (h *Handle) HasLink(index int) (bool, error) {
	_, err := h.conn.DeviceByIndex(index)
	if errors.Is(err, netlink.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}
